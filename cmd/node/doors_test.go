package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/a2aclient"
	a2agrpc "github.com/a2aproject/a2a-go/v2/a2agrpc/v1"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/natsrpc"
	"github.com/agenticraft/node/a2a/natsrpc/natstest"
	"github.com/agenticraft/node/a2a/server"
	"github.com/agenticraft/node/a2a/taskstore"
	httpdoor "github.com/agenticraft/node/bridges/http"
	natsdoor "github.com/agenticraft/node/bridges/nats"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/mesh"
)

const doorsAudience = "agenticraft:doors"

// doorPath verifies for real, and says hello or waits to be cancelled.
type doorPath struct {
	mu    sync.Mutex // guards stops
	stops map[string]func()
}

func (p *doorPath) Submit(_ context.Context, in server.Inbound) (server.Admitted, error) {
	signed, err := a2a.Verify(in.Request, a2a.VerifyOptions{Audiences: []string{doorsAudience}})
	if err != nil {
		return server.Admitted{}, err
	}
	e, err := a2a.DecodeExecution(in.Request)
	if err != nil {
		return server.Admitted{}, err
	}
	id := signed.Task()
	stop := make(chan struct{})
	p.mu.Lock()
	p.stops[id] = sync.OnceFunc(func() { close(stop) })
	p.mu.Unlock()
	return server.Admitted{Task: id, Owner: "agent:" + signed.Issuer.DID(), Run: func(ctx context.Context, out server.Updates) a2a.Report {
		if e.Code == "wait" {
			select {
			case <-stop:
			case <-ctx.Done():
			}
			return a2a.Report{Task: id, Status: a2a.Cancelled}
		}
		out.Output("stdout", 0, []byte("hello\n"))
		return a2a.Report{Task: id, Status: a2a.Succeeded, Stdout: "hello\n", Result: []byte("42")}
	}}, nil
}

func (p *doorPath) Cancel(_ context.Context, task string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if stop := p.stops[task]; stop != nil {
		stop()
	}
	return nil
}

func (p *doorPath) Fetch(context.Context, string, identity.Principal) (*sdk.Task, error) {
	return nil, a2a.Errorf(a2a.CodeNotFound, "there is no such task")
}

// oneKey knows one bearer.
type oneKey struct{ identity.Principal }

func (k oneKey) Authenticate(context.Context, string, string) (identity.Principal, error) {
	return k.Principal, nil
}

// doorsCard is one card for everybody, as a node's own is made and read.
func doorsCard(t *testing.T, key *identity.Key) cardFor {
	t.Helper()
	text, err := a2a.Card(a2a.CardConfig{
		Key: key, Name: "n", Version: "1", Cluster: "doors", Interfaces: []a2a.CardInterface{{URL: "http://x/"}}, Languages: []string{"starlark"}, Sandboxes: []string{"restricted"},
		Offers: []a2a.Offer{{Language: "starlark", Sandbox: "restricted", Tier: "T1", Enforces: []string{"memory"}}}, Extended: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	card, _, err := a2a.VerifyCard(text)
	if err != nil {
		t.Fatal(err)
	}
	card.Signatures = nil
	return func(context.Context, server.Caller) (*sdk.AgentCard, error) { return card, nil }
}

// openDoors serves one handler behind the HTTP door and the mesh door, and
// gives official clients of each binding.
func openDoors(t *testing.T) map[string]*a2aclient.Client {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	store, err := taskstore.Open(taskstore.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	own, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	handler, _, err := openHandler(&config{Push: true}, &doorPath{stops: map[string]func(){}}, store, own, doorsCard(t, own), log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	closing := []func() error{store.Close, func() error {
		end, done := context.WithTimeout(context.Background(), time.Second)
		defer done()
		return handler.Close(end)
	}}
	t.Cleanup(func() {
		cancel()
		serving.Wait()
		for _, close := range slices.Backward(closing) {
			if err := close(); err != nil {
				t.Error(err)
			}
		}
	})
	start := func(serve func() error) {
		serving.Go(func() {
			if err := serve(); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		})
	}

	// Two members of a mesh; the first serves, the second calls.
	var nodes [2]*mesh.Node
	for i := range nodes {
		key, err := identity.Generate()
		if err != nil {
			t.Fatal(err)
		}
		nodes[i], err = mesh.New(mesh.Config{Key: key, Cluster: "doors", Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Allow: func(identity.ID) bool { return true }})
		if err != nil {
			t.Fatal(err)
		}
		closing = append(closing, nodes[i].Close)
	}
	nodes[1].SetPeers(map[identity.ID][]string{nodes[0].ID(): nodes[0].Addrs()})
	rpc := server.HTTP(server.HTTPConfig{Handler: handler})
	for _, n := range nodes {
		start(func() error { return n.Run(ctx) })
	}
	start(func() error { return serveMesh(ctx, nodes[0], rpc, http.NotFoundHandler(), handler, nil, nil, log) })

	// The HTTP door takes its callers for the same member.
	member := oneKey{identity.Principal{Kind: identity.Node, Name: nodes[1].ID().DID(), Roles: []string{"operator"}}}
	overGRPC, err := server.NewGRPC(server.GRPCConfig{Handler: handler, Authenticate: httpdoor.Callers(member)})
	if err != nil {
		t.Fatal(err)
	}
	closing = append(closing, overGRPC.Close)
	doors := httpdoor.Config{
		A2A: rpc, REST: server.REST(server.HTTPConfig{Handler: handler}), GRPC: overGRPC, Authenticator: member,
		Card: http.NotFoundHandler(), Tiles: http.NotFoundHandler(), Metrics: http.NotFoundHandler(),
	}
	door := httpdoor.New(doors)
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	start(func() error { return httpdoor.Serve(ctx, l, door, log) })

	broker := natstest.Start(t, nil)
	doors.Door = server.DoorNATS
	overNATS, err := natsSettings{Access: natsdoor.Access{URL: broker.URL}}.open(natsdoor.Config{
		Node: nodes[0].ID(), Cluster: "doors", Handler: httpdoor.New(doors),
	})
	if err != nil {
		t.Fatal(err)
	}
	start(func() error { return overNATS.Run(ctx) })
	for end := time.Now().Add(conditionMet); !overNATS.Status().Connected; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the NATS door did not open: %+v", overNATS.Status())
		}
	}
	overBroker := &natsrpc.Transport{Conn: broker.Connect()}

	lines := newLinks()
	lines.node = nodes[1]
	base := "http://" + l.Addr().String()
	hc := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(hc.CloseIdleConnections)
	out := map[string]*a2aclient.Client{}
	for name, at := range map[string]struct {
		url     string
		binding sdk.TransportProtocol
		option  a2aclient.FactoryOption
	}{
		"jsonrpc": {base + httpdoor.JSONRPCPath, sdk.TransportProtocolJSONRPC, a2aclient.WithJSONRPCTransport(hc)},
		"rest":    {base + httpdoor.RESTPath, sdk.TransportProtocolHTTPJSON, a2aclient.WithRESTTransport(hc)},
		"grpc":    {l.Addr().String(), sdk.TransportProtocolGRPC, a2agrpc.WithGRPCTransport(grpc.WithTransportCredentials(insecure.NewCredentials()))},
		"libp2p":  {"http://" + string(nodes[0].ID()) + "/", sdk.TransportProtocolJSONRPC, a2aclient.WithJSONRPCTransport(lines.client(nodes[0].ID(), protocolA2A))},
		"nats":    {natsrpc.URL(nodes[0].ID()), sdk.TransportProtocolJSONRPC, a2aclient.WithJSONRPCTransport(&http.Client{Transport: overBroker})},
	} {
		c, err := a2aclient.NewFromEndpoints(t.Context(), []*sdk.AgentInterface{sdk.NewAgentInterface(at.url, at.binding)}, at.option, a2aclient.WithCallInterceptors(bearer{token: "member"}))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Destroy() })
		out[name] = c
	}
	return out
}

// bearer is an interceptor of the official client that sends a credential.
type bearer struct {
	a2aclient.PassthroughInterceptor
	token string
}

func (b bearer) Before(ctx context.Context, req *a2aclient.Request) (context.Context, any, error) {
	req.ServiceParams.Append("Authorization", "Bearer "+b.token)
	return ctx, nil, nil
}

var unequal = regexp.MustCompile(`"[0-9a-f]{32,}"|"20\d\d-[^"]*Z"|"eyJ[^"]*"|"(iat|exp)":\d+|"signature":"[^"]*"`)

// outcome is what a call gave, without what must differ.
func outcome(v any, err error) string {
	if err != nil {
		return "error " + a2a.FromWire(err).Code
	}
	text, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	// A list of a proto is never absent, only empty.
	return strings.ReplaceAll(unequal.ReplaceAllString(string(text), `"…"`), `"tasks":null`, `"tasks":[]`)
}

// A request means the same on every door: equal results and equal errors (A2A
// 5.1), over JSON-RPC, HTTP+JSON, gRPC, a mesh stream and NATS.
func TestEveryDoorAnswersAlike(t *testing.T) {
	clients := openDoors(t)
	key, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	answers := map[string]map[string]string{} // request -> door -> outcome
	for door, c := range clients {
		for _, r := range doorRequests(t, key, c) {
			ctx, cancel := context.WithTimeout(t.Context(), conditionMet)
			if answers[r.name] == nil {
				answers[r.name] = map[string]string{}
			}
			answers[r.name][door] = r.ask(ctx)
			cancel()
		}
	}
	if len(answers) < 40 {
		t.Errorf("%d requests only", len(answers))
	}
	for name, by := range answers {
		if failed := strings.HasPrefix(by["jsonrpc"], "error "); failed != strings.Contains(name, "refused") || by["jsonrpc"] == "" {
			t.Errorf("%s: %s", name, by["jsonrpc"])
		}
		for door, got := range by {
			if diff := cmp.Diff(by["jsonrpc"], got); diff != "" {
				t.Errorf("%s over %s differs from JSON-RPC:\n%s", name, door, diff)
			}
		}
	}
}

type doorRequest struct {
	name string
	ask  func(ctx context.Context) string
}

// doorRequests are asked in this order.
func doorRequests(t *testing.T, key *identity.Key, c *a2aclient.Client) []doorRequest {
	plain := func(code string) *sdk.SendMessageRequest {
		req, err := a2a.NewRequest(a2a.Execution{Language: "starlark", Code: code})
		if err != nil {
			t.Fatal(err)
		}
		req.Message.ID, req.Message.ContextID = "message", a2a.NewJTI()
		return req
	}
	sign := func(req *sdk.SendMessageRequest, change func(*a2a.SignOptions)) *sdk.SendMessageRequest {
		o := a2a.SignOptions{Audience: doorsAudience}
		if change != nil {
			change(&o)
		}
		signed, err := a2a.Sign(key, req, o)
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	text := func(of string) *sdk.SendMessageRequest {
		req := plain("hello")
		req.Message.Parts = sdk.ContentParts{sdk.NewTextPart(of)}
		return sign(req, nil)
	}
	configured := func(code string, config sdk.SendMessageConfig) *sdk.SendMessageRequest {
		req := plain(code)
		req.Config = &config
		return sign(req, nil)
	}
	send := func(make func() *sdk.SendMessageRequest) func(context.Context) string {
		return func(ctx context.Context) string { return outcome(c.SendMessage(ctx, make())) }
	}
	all := func(events func(func(sdk.Event, error) bool)) string {
		var out []string
		for e, err := range events {
			if err != nil {
				return outcome(nil, err)
			}
			out = append(out, fmt.Sprintf("%T %s", e, outcome(e, nil)))
		}
		return strings.Join(out, "\n")
	}
	var done, running *sdk.Task
	zero, one, negative := 0, 1, -1
	return []doorRequest{
		{"send", func(ctx context.Context) string {
			v, err := c.SendMessage(ctx, sign(plain("hello"), nil))
			if done, _ = v.(*sdk.Task); done == nil {
				t.Fatalf("no task but %T, %v", v, err)
			}
			return outcome(v, err)
		}},
		{"send without history", send(func() *sdk.SendMessageRequest {
			return configured("hello", sdk.SendMessageConfig{HistoryLength: &zero})
		})},
		{"send at once", func(ctx context.Context) string {
			v, err := c.SendMessage(ctx, configured("wait", sdk.SendMessageConfig{ReturnImmediately: true}))
			if running, _ = v.(*sdk.Task); running == nil {
				t.Fatalf("no task but %T, %v", v, err)
			}
			return outcome(v, err)
		}},
		{"stream", func(ctx context.Context) string {
			got := all(c.SendStreamingMessage(ctx, sign(plain("hello"), nil)))
			// How output is cut, and whether the task holds it, is a matter of pace.
			_, end, _ := strings.Cut(got, `"artifactId":"report"`)
			return end
		}},
		{"fenced code", send(func() *sdk.SendMessageRequest { return text("Run this:\n```starlark\nhello\n```\nand tell me.") })},
		{"fenced code streamed", func(ctx context.Context) string {
			_, end, _ := strings.Cut(all(c.SendStreamingMessage(ctx, text("```starlark\nhello\n```"))), `"artifactId":"report"`)
			return end
		}},
		{"text without code refused", send(func() *sdk.SendMessageRequest { return text("hello") })},
		{"two pieces of code refused", send(func() *sdk.SendMessageRequest { return text("```a\n1\n```\n```a\n2\n```") })},
		{"code of no language refused", send(func() *sdk.SendMessageRequest { return text("```\nhello\n```") })},
		{"metadata of every kind", send(func() *sdk.SendMessageRequest {
			req := plain("hello")
			req.Message.Metadata = map[string]any{"trace": "é\u2028\U0001F600", "n": 1e21 / 1e6, "list": []any{nil, true, 1.5}}
			return sign(req, nil)
		})},
		{"large number refused", send(func() *sdk.SendMessageRequest {
			req := plain("hello")
			req.Message.Metadata = map[string]any{"n": "placeholder"}
			req = sign(req, nil)
			req.Message.Metadata["n"] = float64(1<<53 + 2)
			return req
		})},
		{"unsigned refused", send(func() *sdk.SendMessageRequest { return plain("hello") })},
		{"unsigned stream refused", func(ctx context.Context) string { return all(c.SendStreamingMessage(ctx, plain("hello"))) }},
		{"tampered refused", send(func() *sdk.SendMessageRequest {
			req := sign(plain("hello"), nil)
			req.Message.Parts = plain("other").Message.Parts
			return req
		})},
		{"expired refused", send(func() *sdk.SendMessageRequest {
			return sign(plain("hello"), func(o *a2a.SignOptions) { o.Now = time.Now().Add(-time.Hour) })
		})},
		{"future refused", send(func() *sdk.SendMessageRequest {
			return sign(plain("hello"), func(o *a2a.SignOptions) { o.Now = time.Now().Add(time.Hour) })
		})},
		{"wrong audience refused", send(func() *sdk.SendMessageRequest {
			return sign(plain("hello"), func(o *a2a.SignOptions) { o.Audience = "agenticraft:other" })
		})},
		{"no execution refused", send(func() *sdk.SendMessageRequest {
			req := plain("hello")
			req.Message.Parts = sdk.ContentParts{sdk.NewDataPart(map[string]any{"language": "starlark", "kode": "x"})}
			return sign(req, nil)
		})},
		{"message to an unknown task refused", send(func() *sdk.SendMessageRequest {
			req := plain("hello")
			req.Message.TaskID = sdk.TaskID(a2a.NewJTI())
			return sign(req, nil)
		})},
		{"message to an ended task refused", send(func() *sdk.SendMessageRequest {
			req := plain("hello")
			req.Message.TaskID, req.Message.ContextID = done.ID, ""
			return sign(req, nil)
		})},
		{"send with push refused", send(func() *sdk.SendMessageRequest {
			return configured("hello", sdk.SendMessageConfig{PushConfig: &sdk.PushConfig{URL: "https://192.168.0.1/"}})
		})},
		{"get", func(ctx context.Context) string { return outcome(c.GetTask(ctx, &sdk.GetTaskRequest{ID: done.ID})) }},
		{"get without history", func(ctx context.Context) string {
			return outcome(c.GetTask(ctx, &sdk.GetTaskRequest{ID: done.ID, HistoryLength: &zero}))
		}},
		{"get with negative history refused", func(ctx context.Context) string {
			return outcome(c.GetTask(ctx, &sdk.GetTaskRequest{ID: done.ID, HistoryLength: &negative}))
		}},
		{"get unknown refused", func(ctx context.Context) string { return outcome(c.GetTask(ctx, &sdk.GetTaskRequest{ID: "nothing"})) }},
		{"list", func(ctx context.Context) string {
			return outcome(c.ListTasks(ctx, &sdk.ListTasksRequest{ContextID: done.ContextID, PageSize: 1, HistoryLength: &one, IncludeArtifacts: true}))
		}},
		{"list nothing", func(ctx context.Context) string {
			return outcome(c.ListTasks(ctx, &sdk.ListTasksRequest{ContextID: "nothing"}))
		}},
		{"list too many refused", func(ctx context.Context) string {
			return outcome(c.ListTasks(ctx, &sdk.ListTasksRequest{PageSize: 1000}))
		}},
		{"list from nowhere refused", func(ctx context.Context) string {
			return outcome(c.ListTasks(ctx, &sdk.ListTasksRequest{PageToken: "!"}))
		}},
		{"cancel ended refused", func(ctx context.Context) string {
			return outcome(c.CancelTask(ctx, &sdk.CancelTaskRequest{ID: done.ID}))
		}},
		{"cancel unknown refused", func(ctx context.Context) string {
			return outcome(c.CancelTask(ctx, &sdk.CancelTaskRequest{ID: "nothing"}))
		}},
		{"subscribe to ended refused", func(ctx context.Context) string {
			return all(c.SubscribeToTask(ctx, &sdk.SubscribeToTaskRequest{ID: done.ID}))
		}},
		{"subscribe to unknown refused", func(ctx context.Context) string {
			return all(c.SubscribeToTask(ctx, &sdk.SubscribeToTaskRequest{ID: "nothing"}))
		}},
		{"subscribe and cancel", func(ctx context.Context) string {
			return all(func(yield func(sdk.Event, error) bool) {
				for e, err := range c.SubscribeToTask(ctx, &sdk.SubscribeToTaskRequest{ID: running.ID}) {
					if _, first := e.(*sdk.Task); first {
						if _, err := c.CancelTask(ctx, &sdk.CancelTaskRequest{ID: running.ID}); err != nil {
							yield(nil, err)
							return
						}
					}
					if !yield(e, err) {
						return
					}
				}
			})
		}},
		{"get cancelled", func(ctx context.Context) string { return outcome(c.GetTask(ctx, &sdk.GetTaskRequest{ID: running.ID})) }},
		{"push config refused", func(ctx context.Context) string {
			return outcome(c.CreateTaskPushConfig(ctx, &sdk.PushConfig{TaskID: done.ID, URL: "https://192.168.0.1/"}))
		}},
		{"push config created", func(ctx context.Context) string { // the task has ended: nobody will be told
			return outcome(c.CreateTaskPushConfig(ctx, &sdk.PushConfig{TaskID: done.ID, ID: "one", URL: "https://hooks.invalid/", Token: "s3cret"}))
		}},
		{"push config of an unknown task refused", func(ctx context.Context) string {
			return outcome(c.CreateTaskPushConfig(ctx, &sdk.PushConfig{TaskID: sdk.TaskID(a2a.NewJTI()), URL: "https://hooks.invalid/"}))
		}},
		{"push config read", func(ctx context.Context) string {
			return outcome(c.GetTaskPushConfig(ctx, &sdk.GetTaskPushConfigRequest{TaskID: done.ID, ID: "one"}))
		}},
		{"push configs listed", func(ctx context.Context) string {
			return outcome(c.ListTaskPushConfigs(ctx, &sdk.ListTaskPushConfigRequest{TaskID: done.ID}))
		}},
		{"push config deleted", func(ctx context.Context) string {
			return outcome("", c.DeleteTaskPushConfig(ctx, &sdk.DeleteTaskPushConfigRequest{TaskID: done.ID, ID: "one"}))
		}},
		{"deleted push config refused", func(ctx context.Context) string {
			return outcome(c.GetTaskPushConfig(ctx, &sdk.GetTaskPushConfigRequest{TaskID: done.ID, ID: "one"}))
		}},
		{"extended card", func(ctx context.Context) string {
			card, err := c.GetExtendedAgentCard(ctx, &sdk.GetExtendedAgentCardRequest{})
			if err != nil {
				return outcome(nil, err)
			}
			return outcome(map[string]any{"skills": card.Skills, "extensions": card.Capabilities.Extensions, "name": card.Name}, nil)
		}},
	}
}
