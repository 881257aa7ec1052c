package agent_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"reflect"
	"testing"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/google/go-cmp/cmp"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/server"
	"github.com/agenticraft/node/agent"
	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/identity"
)

func (w *world) onPeer(e *a2a.Execution) { e.On = string(w.peer.ID()) }

// advertise has the peer say that it runs Python.
func (w *world) advertise() {
	w.t.Helper()
	text, err := json.Marshal(agent.Advert{Version: 1, Run: true, Backends: map[string][]string{"process": {"python"}}, Slots: 4})
	if err != nil {
		w.t.Fatal(err)
	}
	w.peers.adverts = map[identity.ID][]byte{w.peer.ID(): text}
}

func ended(t *testing.T, rep a2a.Report) *sdk.Task {
	t.Helper()
	task, err := a2a.TaskOf(rep)
	if err != nil {
		t.Fatal(err)
	}
	return task
}

func TestAPeerRunsWhatItIsHanded(t *testing.T) {
	w := newWorld(t)
	req := w.signed(w.caller, w.onPeer)
	w.peers.send = func(to identity.ID, got *sdk.SendMessageRequest, delegation []byte) (*sdk.Task, error) {
		if to != w.peer.ID() || got != req || len(delegation) == 0 {
			t.Errorf("sent %p to %s with %d bytes of delegation, want the request as it was signed", got, to, len(delegation))
		}
		index := uint64(7)
		return ended(t, a2a.Report{Status: a2a.Succeeded, Result: json.RawMessage("2"), Intent: &index, Outcome: &index}), nil
	}
	rep := w.run(req)
	if rep.Status != a2a.Succeeded || string(rep.Result) != "2" || rep.Node != w.peer.ID() || w.runner.runs() != 0 {
		t.Errorf("report %+v, %d runs here", rep, w.runner.runs())
	}
}

// A peer that surely did not begin is passed over; one that may have is not.
func TestRefusalsAreRetriedElsewhere(t *testing.T) {
	busy := &a2a.Error{Code: a2a.CodeBusy, Message: "full"}
	for name, failure := range map[string]error{"busy": busy, "unreachable": agent.ErrUnreachable} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.advertise()
			w.runner.load.Busy, w.runner.load.Slots = 1, 1 // so that the peer comes first
			asked := 0
			w.peers.send = func(identity.ID, *sdk.SendMessageRequest, []byte) (*sdk.Task, error) {
				asked++
				return nil, failure
			}
			rep := w.run(w.signed(w.caller, nil))
			if rep.Status != a2a.Succeeded || asked != 1 || w.runner.runs() != 1 {
				t.Errorf("report %+v; the peer was asked %d times, %d runs here", rep, asked, w.runner.runs())
			}
		})
	}
}

// A peer that stops answering before it wrote its intent can never write it:
// the request's at-most-once key is taken.
//
// INVARIANT: I8, at most one run per (issuer, jti, attempt).
func TestASilentPeerIsFencedOff(t *testing.T) {
	w := newWorld(t)
	req := w.signed(w.caller, w.onPeer)
	var delegation []byte
	w.peers.send = func(_ identity.ID, _ *sdk.SendMessageRequest, d []byte) (*sdk.Task, error) {
		delegation = d
		return nil, io.ErrUnexpectedEOF
	}
	rep := w.run(req)
	if rep.Status != a2a.Failed || rep.Error == nil || rep.Error.Code != a2a.CodeUnavailable || rep.Intent != nil {
		t.Errorf("report %+v", rep)
	}
	// The peer comes back to life with the request in its hands.
	late := w.asPeer()
	adm, err := late.agent.Submit(t.Context(), server.Inbound{
		Request: req, Delegation: delegation, Caller: server.Caller{Peer: w.node.ID(), Door: server.DoorMesh},
	})
	if err == nil && adm.Run != nil {
		adm.Run(t.Context(), quiet{})
	}
	if late.runner.runs() != 0 || len(w.entries(audit.KindIntent)) != 0 {
		t.Errorf("it ran after all: %d runs, %+v, %v", late.runner.runs(), adm, err)
	}
}

// A peer that stops answering after its intent leaves a lost execution.
//
// INVARIANT: I2, every intent gets exactly one outcome.
func TestASilentPeersExecutionIsLost(t *testing.T) {
	w := newWorld(t)
	peer := w.asPeer()
	peer.record.failing(func(e audit.Entry) (error, error) {
		if e.Kind == audit.KindOutcome {
			return &audit.Refusal{Code: "dead"}, nil // it dies before its outcome
		}
		return nil, nil
	})
	w.peers.send = func(_ identity.ID, req *sdk.SendMessageRequest, d []byte) (*sdk.Task, error) {
		adm, err := peer.agent.Submit(context.Background(), server.Inbound{
			Request: req, Delegation: d, Caller: server.Caller{Peer: w.node.ID(), Door: server.DoorMesh},
		})
		if err != nil {
			return nil, err
		}
		adm.Run(context.Background(), quiet{})
		return nil, io.ErrUnexpectedEOF
	}
	rep := w.run(w.signed(w.caller, w.onPeer))
	if rep.Status != a2a.Lost || rep.Intent == nil || rep.Outcome == nil {
		t.Errorf("report %+v", rep)
	}
	if n := len(w.entries(audit.KindOutcome)); n != 1 {
		t.Errorf("the log has %d outcomes, want 1", n)
	}
}

// asPeer is the same world as the other member sees it.
func (w *world) asPeer() *world {
	w.t.Helper()
	other := &world{
		t: w.t, node: w.peer, peer: w.node, caller: w.caller, viewer: w.viewer, log: w.log, policy: w.policy,
		record: &recorder{next: w.log.Recorder(w.peer)}, peers: &peers{},
	}
	other.runner = &runner{w: other}
	other.build()
	return other
}

// The executor trusts the door for nothing that it can check itself.
//
// INVARIANT: I3, a signature covers what was received.
func TestForgedDelegations(t *testing.T) {
	w := newWorld(t)
	peer := w.asPeer()
	var good []byte
	req := w.signed(w.caller, w.onPeer)
	w.peers.send = func(_ identity.ID, _ *sdk.SendMessageRequest, d []byte) (*sdk.Task, error) {
		good = d
		return nil, agent.ErrUnreachable
	}
	w.run(req)
	tampered := append([]byte(nil), good...)
	tampered[len(tampered)/2] ^= 1
	stranger := newKey(t)
	tampRequest := w.signed(w.caller, w.onPeer)
	tampRequest.Message.ID = "changed"
	for name, tc := range map[string]struct {
		in   server.Inbound
		code string
	}{
		"none":            {server.Inbound{Request: req, Caller: server.Caller{Peer: w.node.ID(), Door: server.DoorMesh}}, a2a.CodeInvalidRequest},
		"tampered":        {server.Inbound{Request: req, Delegation: tampered, Caller: server.Caller{Peer: w.node.ID(), Door: server.DoorMesh}}, a2a.CodeInvalidRequest},
		"another peer's":  {server.Inbound{Request: req, Delegation: good, Caller: server.Caller{Peer: stranger.ID(), Door: server.DoorMesh}}, a2a.CodeInvalidRequest},
		"another task's":  {server.Inbound{Request: w.signed(w.caller, w.onPeer), Delegation: good, Caller: server.Caller{Peer: w.node.ID(), Door: server.DoorMesh}}, a2a.CodeInvalidRequest},
		"changed request": {server.Inbound{Request: tampRequest, Delegation: good, Caller: server.Caller{Peer: w.node.ID(), Door: server.DoorMesh}}, a2a.CodeSignatureInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			adm, err := peer.agent.Submit(t.Context(), tc.in)
			if adm.Run != nil {
				t.Error("admitted")
			}
			wantCode(t, err, tc.code)
		})
	}
	if adm, err := peer.agent.Submit(t.Context(), server.Inbound{Request: req, Delegation: good, Caller: server.Caller{Peer: w.node.ID(), Door: server.DoorMesh}}); err != nil || adm.Run == nil {
		t.Errorf("the good one: %+v, %v", adm, err)
	}
}

// Tasks that a crash of the door interrupted get the end that the log knows.
func TestInterruptedTasksEnd(t *testing.T) {
	w := newWorld(t)
	rep := w.run(w.signed(w.caller, nil))
	unrun := w.signed(w.caller, nil)
	facts, err := a2a.Verify(unrun, a2a.VerifyOptions{Audiences: []string{a2a.Audience(clusterName)}})
	if err != nil {
		t.Fatal(err)
	}
	never := facts.Task()
	open := &tasks{open: []string{rep.Task, never}}
	w.sweep(open, func() bool { return len(open.Unfinished()) == 0 })
	got, _ := open.end(rep.Task)
	got.Duration = rep.Duration // of what came before the crash
	if diff := cmp.Diff(rep, got); diff != "" || got.Stdout == "" || got.Outcome == nil {
		t.Errorf("the one that ran ends otherwise than it was told (-told +got):\n%s", diff)
	}
	if got, _ := open.end(never); got.Status != a2a.Lost {
		t.Errorf("the one that never began ends as %+v", got)
	}
	// Its sender, who asks again, is shown that end.
	if adm, err := w.submit(unrun); err != nil || !adm.Existing || adm.Task != never {
		t.Errorf("the one that never began, again: %+v, %v", adm, err)
	}
}

// What is not kept, or not what the log has, is told from the log alone.
func TestInterruptedTasksEndByTheLog(t *testing.T) {
	for name, spoil := range map[string]func(file string) error{
		"erased": os.Remove,
		"changed": func(file string) error {
			text, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			changed := bytes.Replace(text, []byte(`"stdout":"`), []byte(`"stdout":"AAAA`), 1)
			return os.WriteFile(file, changed, 0o600)
		},
		"of another end": func(file string) error {
			text, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			changed := bytes.Replace(text, []byte(`"status":"succeeded"`), []byte(`"status":"killed"`), 1)
			return os.WriteFile(file, changed, 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			rep := w.run(w.signed(w.caller, nil))
			if err := spoil(w.file(rep.Task)); err != nil {
				t.Fatal(err)
			}
			open := &tasks{open: []string{rep.Task}}
			w.sweep(open, func() bool { return len(open.Unfinished()) == 0 })
			got, _ := open.end(rep.Task)
			if got.Status != a2a.Succeeded || got.Stdout != "" || !reflect.DeepEqual(got.Outcome, rep.Outcome) {
				t.Errorf("it ends as %+v", got)
			}
		})
	}
}

func TestReceiptsAreForWhoMaySeeTheTask(t *testing.T) {
	w := newWorld(t)
	rep := w.run(w.signed(w.caller, nil))
	stranger := identity.Principal{Kind: identity.Agent, Name: w.viewer.ID().DID(), Tenant: "acme", Roles: []string{"viewer"}}
	_, err := w.agent.Receipt(t.Context(), rep.Task, stranger)
	wantCode(t, err, a2a.CodeNotFound)
	_, err = w.agent.Fetch(t.Context(), rep.Task, stranger)
	wantCode(t, err, a2a.CodeNotFound)
	auditor := identity.Principal{Kind: identity.Service, Name: "x", Roles: []string{"auditor"}}
	if _, err := w.agent.Fetch(t.Context(), rep.Task, auditor); err != nil {
		t.Errorf("an auditor: %v", err)
	}
	if _, err := w.agent.Receipt(t.Context(), "no-such-task", auditor); !errors.As(err, new(*a2a.Error)) {
		t.Errorf("no such task: %v", err)
	}
}

// A task that our copy of the log does not hold yet is asked for at the other
// nodes, for who may see it.
func TestATaskAheadOfOurLogIsAskedFor(t *testing.T) {
	w := newWorld(t)
	asked := 0
	w.peers.adverts = map[identity.ID][]byte{"peer": []byte("{}")}
	w.peers.task = func(task string) (*sdk.Task, error) {
		asked++
		found := &sdk.Task{ID: sdk.TaskID(task)}
		found.SetMeta(a2a.ExecutionURI, map[string]any{"owner": "agent:anna"})
		return found, nil
	}
	task := "00112233445566778899aabbccddeeff"
	owner := identity.Principal{Kind: identity.Agent, Name: "anna"}
	if got, err := w.agent.Fetch(t.Context(), task, owner); err != nil || string(got.ID) != task {
		t.Errorf("its owner gets %+v, %v", got, err)
	}
	_, err := w.agent.Fetch(t.Context(), task, identity.Principal{Kind: identity.Agent, Name: "ben"})
	wantCode(t, err, a2a.CodeNotFound)
	before := asked
	_, err = w.agent.Fetch(t.Context(), task, identity.Principal{Kind: identity.Node, Name: "x", Roles: []string{"operator"}})
	wantCode(t, err, a2a.CodeNotFound)
	if asked != before {
		t.Error("a node that asks makes us ask others")
	}
}
