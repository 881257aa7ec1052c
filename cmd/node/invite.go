package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/audit"
	httpdoor "github.com/agenticraft/node/bridges/http"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/mesh"
	"github.com/agenticraft/node/registry"
)

const (
	defaultInvite = 24 * time.Hour
	maxInvite     = 30 * 24 * time.Hour
	maxJoinAsk    = 32 << 10 // bytes
	joinAskDomain = "agenticraft join request v1"
	joinVersion   = 1
)

// reception lets nodes in and out. It implements the HTTP door's Members and
// serves the streams of those who join or leave.
type reception struct {
	admin   *admin
	who     *membership
	node    *mesh.Node
	cluster string
	genesis []byte
	leaving *departure
	log     *slog.Logger
}

// Invite makes an invitation and the token that uses it.
func (r *reception) Invite(ctx context.Context, by identity.Principal, req httpdoor.InviteRequest) (httpdoor.Invitation, error) {
	var none httpdoor.Invitation
	role := req.Role
	if role == "" {
		role = registry.Worker
	}
	end, err := inviteEnd(req.Expires, time.Now())
	if err != nil {
		return none, err
	}
	addrs := r.keeperAddrs()
	if len(addrs) == 0 {
		return none, &a2a.Error{Code: a2a.CodeUnavailable, Message: "no address is known by which another node could reach a keeper", Hint: "set mesh, or peers, in the keepers' configuration"}
	}
	key, err := identity.Generate()
	if err != nil {
		return none, err
	}
	body := registry.MemberBody{Action: registry.Invite, ID: key.ID(), Role: role, Expires: audit.FormatTime(end)}
	if err := record(ctx, r.admin, by, body); err != nil {
		return none, err
	}
	token := inviteToken{
		Cluster: r.cluster, Origin: r.who.origin, Role: role, Expires: end.Unix(),
		Seed: key.Private().Seed(), Peers: joinPeers(addrs),
	}
	text, err := token.encode()
	if err != nil {
		return none, err
	}
	return httpdoor.Invitation{ID: string(key.ID()), Role: role, Expires: end.UTC().Format(time.RFC3339), Token: text}, nil
}

func inviteEnd(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return now.Add(defaultInvite).Truncate(time.Second), nil
	}
	at, err := expiry(text, now)
	if err != nil {
		return time.Time{}, err
	}
	end, err := audit.ParseTime(at)
	if err == nil && end.After(now.Add(maxInvite)) {
		err = a2a.Errorf(a2a.CodeInvalidRequest, "an invitation lasts at most 30 days")
	}
	return end.Truncate(time.Second), err
}

// keeperAddrs are where the keepers may be found: this one as it listens, the
// others as they are known.
func (r *reception) keeperAddrs() map[identity.ID][]string {
	all := r.who.peers()
	out := map[identity.ID][]string{}
	for _, id := range append(r.who.keepers(), r.who.self) {
		if !r.who.votes(id) {
			continue
		}
		addrs := all[id]
		if id == r.who.self {
			addrs = r.node.Addrs()
		}
		if len(addrs) > 0 {
			out[id] = addrs[:min(len(addrs), 8)]
		}
	}
	return out
}

// Remove takes a node out of the cluster. A keeper that votes leaves the vote
// first, and this node itself ends what runs here first; both are "leaving".
func (r *reception) Remove(ctx context.Context, by identity.Principal, idOrName string) (httpdoor.Removal, error) {
	m, err := r.find(idOrName)
	if err != nil {
		return httpdoor.Removal{}, err
	}
	votes := r.who.votes(m.ID)
	if m.ID == r.who.self && !votes {
		r.leaving.begin()
		return httpdoor.Removal{ID: m.ID, State: "leaving"}, nil
	}
	if votes {
		if err := r.mayGo(m.ID); err != nil {
			return httpdoor.Removal{}, err
		}
	}
	if m.Leaving != nil && r.who.counts(m.ID) {
		return httpdoor.Removal{ID: m.ID, State: "leaving"}, nil // raft's members come first, see goodbye
	}
	if err := record(ctx, r.admin, by, registry.MemberBody{Action: registry.Remove, ID: m.ID}); err != nil {
		return httpdoor.Removal{}, err
	}
	if votes {
		return httpdoor.Removal{ID: m.ID, State: "leaving"}, nil
	}
	return httpdoor.Removal{ID: m.ID, State: "removed"}, nil
}

// mayGo refuses to let a keeper go when those who stay, as far as this node reaches
// them, would be no quorum: nobody could ever write that one of them is dead.
func (r *reception) mayGo(id identity.ID) error {
	changes, err := r.who.registry.Changes()
	if err != nil {
		return err
	}
	for _, other := range changes.Goes {
		changes.Now.Keepers = changes.Without(other)
	}
	stay := changes.Without(id)
	there := 1
	for _, p := range r.node.Peers() {
		if p.Connected && p.ID != r.who.self && slices.Contains(stay, p.ID) {
			there++
		}
	}
	if !slices.Contains(stay, r.who.self) {
		there--
	}
	if len(stay) == 0 || there > len(stay)/2 { // the last one is refused by the registry, which says why
		return nil
	}
	return &a2a.Error{
		Code:    a2a.CodeUnavailable,
		Message: fmt.Sprintf("without it %d keepers stay, of which %d can be reached from here: the cluster would stand still", len(stay), there),
		Hint:    "remove the one that is dead first, or start it again; agenticraft nodes shows which are connected",
	}
}

func (r *reception) find(idOrName string) (registry.Member, error) {
	members, err := r.who.registry.Members()
	if err != nil {
		return registry.Member{}, err
	}
	for _, m := range members {
		if string(m.ID) == idOrName || m.ID.DID() == idOrName || m.Name == idOrName && idOrName != "" {
			return m, nil
		}
	}
	return registry.Member{}, a2a.Errorf(a2a.CodeNotFound, "no node %.80q in this cluster", idOrName)
}

// joinAsk is the body of POST /join: who comes, and that it is allowed to.
type joinAsk struct {
	V     int         `json:"v"`
	ID    identity.ID `json:"id"`
	Role  string      `json:"role"`
	Name  string      `json:"name,omitempty"`
	Addrs []string    `json:"addrs,omitempty"`
	Proof string      `json:"proof"` // registry.JoinProof
	Sig   []byte      `json:"sig"`   // of the node's own key over the proof
}

// joinAnswer is what a new member starts with.
type joinAnswer struct {
	V       int      `json:"v"`
	Genesis string   `json:"genesis"` // leaf of entry 0
	Index   uint64   `json:"index"`   // of the entry that let the node in
	Peers   []string `json:"peers"`   // multiaddrs of keepers, with /p2p/ID
}

func parseJoinAsk(body []byte) (joinAsk, error) {
	var ask joinAsk
	d := json.NewDecoder(strings.NewReader(string(body)))
	d.DisallowUnknownFields()
	err := d.Decode(&ask)
	if err == nil && d.More() {
		err = errors.New("more than one value")
	}
	if err != nil || ask.V != joinVersion || !ask.ID.Verify(joinAskDomain, []byte(ask.Proof), ask.Sig) {
		return joinAsk{}, a2a.Errorf(a2a.CodeInvalidRequest, "the request to join is malformed or not signed by the node that it names")
	}
	return ask, nil
}

// serve answers those who were invited (POST /join) and members who leave (POST
// /leave). The connection proves who they are.
func (r *reception) serve(ctx context.Context) error {
	mux := http.NewServeMux()
	answer := func(do func(ctx context.Context, from identity.ID, body []byte) (any, error)) http.HandlerFunc {
		return func(w http.ResponseWriter, req *http.Request) {
			from, err := identity.ParseID(req.RemoteAddr)
			var body []byte
			var v any
			if err == nil {
				body, err = io.ReadAll(http.MaxBytesReader(w, req.Body, maxJoinAsk))
			}
			if err == nil {
				v, err = do(req.Context(), from, body)
			}
			w.Header().Set("Content-Type", "application/json")
			if err != nil {
				known := new(a2a.Error)
				if !errors.As(err, &known) {
					r.log.WarnContext(req.Context(), "request of a node that joins or leaves failed", "peer", from, "err", err)
					known = &a2a.Error{Code: a2a.CodeInternal, Message: "the keeper could not do it; its log says why"}
				}
				w.WriteHeader(http.StatusConflict)
				v = map[string]string{"code": known.Code, "message": known.Message, "hint": known.Hint}
			}
			if err := json.NewEncoder(w).Encode(v); err != nil {
				r.log.DebugContext(req.Context(), "answer not sent", "peer", from, "err", err)
			}
		}
	}
	mux.HandleFunc("POST /join", answer(r.join))
	mux.HandleFunc("POST /leave", answer(r.goodbye))
	return serveStreams(ctx, r.node, mesh.GuestProtocol, r.log, mux)
}

// join lets a node in that shows an open invitation: the guest's key is the
// invitation's. Who asks again after the answer was lost gets it again.
func (r *reception) join(ctx context.Context, guest identity.ID, body []byte) (any, error) {
	ask, err := parseJoinAsk(body)
	if err != nil {
		return nil, err
	}
	add := registry.MemberBody{
		Action: registry.Add, ID: ask.ID, Role: ask.Role, Name: ask.Name, Addrs: ask.Addrs, Invite: guest, Proof: ask.Proof,
	}
	err = record(ctx, r.admin, nodePrincipal(r.who.self), add)
	m, rowErr := r.who.registry.MemberByID(ask.ID)
	inv, invErr := r.who.registry.InvitationByID(guest)
	if err == nil && rowErr != nil {
		return nil, &a2a.Error{Code: a2a.CodeUnavailable, Message: "the node is a member, but this keeper does not see it yet; ask again"}
	}
	if err != nil && (rowErr != nil || invErr != nil || inv.Used == nil || *inv.Used != m.Since) {
		return nil, err
	}
	r.log.InfoContext(ctx, "a node joined", "peer", ask.ID, "role", ask.Role)
	return joinAnswer{V: joinVersion, Genesis: string(r.genesis), Index: m.Since, Peers: joinPeers(r.keeperAddrs())}, nil
}

// codeStays is the code of the answer to a keeper whose vote raft still counts.
const codeStays = "stays"

// goodbye removes the member that asks for it. A keeper is first let go by raft: if
// it went before, and another one is dead, the rest might be no quorum.
func (r *reception) goodbye(ctx context.Context, from identity.ID, _ []byte) (any, error) {
	if r.who.counts(from) {
		return nil, a2a.Errorf(codeStays, "raft still counts this keeper; ask again")
	}
	r.who.part(from)
	err := record(ctx, r.admin, nodePrincipal(from), registry.MemberBody{Action: registry.Remove, ID: from})
	if err != nil && r.who.registry.Member(from) {
		return nil, err
	}
	r.log.InfoContext(ctx, "a node left", "peer", from)
	return struct{}{}, nil
}

// askKeeper does one request of the join protocol.
func askKeeper(ctx context.Context, client *http.Client, path string, body, into any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://keeper"+path, strings.NewReader(string(text)))
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxJoinAnswer))
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		refusal := &a2a.Error{}
		var said struct{ Code, Message, Hint string }
		if err := json.Unmarshal(answer, &said); err != nil || said.Code == "" {
			return fmt.Errorf("a keeper answered %d", res.StatusCode)
		}
		refusal.Code, refusal.Message, refusal.Hint = said.Code, said.Message, said.Hint
		return refusal
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(answer, into)
}

const maxJoinAnswer = 512 << 10 // bytes
