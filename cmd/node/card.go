package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/server"
	"github.com/agenticraft/node/authz"
	httpdoor "github.com/agenticraft/node/bridges/http"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/sandbox"
)

// a2aPath is where the HTTP door serves A2A over JSON-RPC.
const a2aPath = httpdoor.JSONRPCPath

// cards are the node's signed agent card and what callers see of it.
type cards struct {
	http.Handler // serves card and keys where agents look for them

	manager   *sandbox.Manager
	about     a2a.CardConfig // but for what the sandboxes offer
	node      identity.ID
	policy    *authz.Policy
	directory directory
	noRun     bool
	log       *slog.Logger

	mu     sync.Mutex // guards what follows
	looked time.Time
	now    card
}

// card is what the card says as long as the sandboxes offer the same.
type card struct {
	served http.Handler
	public *sdk.AgentCard // without its signatures
	offers []a2a.Offer
}

// offersFor is how long what the sandboxes offer is taken to be the same: less
// than caches may keep the card.
const offersFor = time.Second

// newCards makes the card. Without a port of its own, gRPC is on the HTTP door's.
func newCards(cfg *config, secure *tlsFiles, key *identity.Key, clusterName string, m *sandbox.Manager, policy *authz.Policy, members directory, log *slog.Logger) (*cards, error) {
	also, ids, err := cardKeys(cfg, key)
	if err != nil {
		return nil, err
	}
	base, grpcAddr := reachedAt(cfg, secure)
	c := &cards{manager: m, node: key.ID(), policy: policy, directory: members, noRun: cfg.NoRun, log: log}
	c.about = a2a.CardConfig{
		Key:         key,
		Also:        also,
		Name:        "AgentiCraft node",
		Description: "Runs code in sandboxes, under policy and on the record.",
		Version:     buildVersion().Version,
		Cluster:     clusterName,
		Interfaces: append([]a2a.CardInterface{
			{URL: base + a2aPath},
			{URL: base + httpdoor.RESTPath, Binding: string(sdk.TransportProtocolHTTPJSON)},
			{URL: grpcAddr, Binding: string(sdk.TransportProtocolGRPC)},
		}, cfg.NATS.interfaces()...),
		Push:       cfg.Push,
		Extended:   true,
		SignedOnly: cfg.SignedOnly,
	}
	if c.now, err = c.make(offersOf(m)); err != nil {
		return nil, err
	}
	keys, err := a2a.JWKS(ids...)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc(a2a.CardPath, func(w http.ResponseWriter, r *http.Request) { c.current().served.ServeHTTP(w, r) })
	mux.Handle(a2a.KeysPath, server.Document(keys, "application/jwk-set+json"))
	c.Handler = mux
	return c, nil
}

// make makes and signs the card for what the sandboxes offer.
func (c *cards) make(offers []a2a.Offer) (card, error) {
	languages, backends := map[string]bool{}, map[string]bool{}
	for _, o := range offers {
		languages[o.Language], backends[o.Sandbox] = true, true
	}
	about := c.about
	about.Languages, about.Sandboxes, about.Offers = slices.Sorted(maps.Keys(languages)), slices.Sorted(maps.Keys(backends)), offers
	text, err := a2a.Card(about)
	if err != nil {
		return card{}, err
	}
	public, _, err := a2a.VerifyCard(text)
	if err != nil {
		return card{}, err
	}
	public.Signatures = nil // what callers see of it is not what was signed
	return card{server.Document(text, "application/json"), public, offers}, nil
}

// current is the card for what the sandboxes offer now: a language tree that was
// added is in it. If there is none to be made, the last one stays.
func (c *cards) current() card {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.looked) >= offersFor {
		c.looked = now
		if offers := offersOf(c.manager); !reflect.DeepEqual(offers, c.now.offers) {
			fresh, err := c.make(offers)
			if err != nil {
				c.log.Error("agent card not made anew", "err", err)
				return c.now
			}
			c.now = fresh
		}
	}
	return c.now
}

// cardKeys are the further keys that sign the card, and all that do.
func cardKeys(cfg *config, key *identity.Key) ([]*identity.Key, []identity.ID, error) {
	ids := []identity.ID{key.ID()}
	var also []*identity.Key
	for _, file := range cfg.CardKeys {
		k, err := identity.Load(file)
		if err != nil {
			return nil, nil, usage("card_keys: %v", err)
		}
		if slices.Contains(ids, k.ID()) {
			return nil, nil, usage("card_keys: %s signs already", k.ID().DID())
		}
		also, ids = append(also, k), append(ids, k.ID())
	}
	return also, ids, nil
}

// offersOf is what the sandboxes of this machine really offer, sorted.
func offersOf(m *sandbox.Manager) []a2a.Offer {
	var out []a2a.Offer
	for _, d := range m.Describe() {
		for _, l := range d.Languages {
			if d.Available {
				out = append(out, a2a.Offer{Language: l, Sandbox: d.Name, Tier: d.Tier, Runtime: d.Runtimes[l], Enforces: slices.Sorted(maps.Keys(d.Enforces))})
			}
		}
	}
	slices.SortFunc(out, func(a, b a2a.Offer) int {
		return cmp.Or(cmp.Compare(a.Language, b.Language), cmp.Compare(a.Sandbox, b.Sandbox))
	})
	return out
}

// terms are what policy grants a caller of one offer.
type terms struct {
	a2a.Offer
	Limits authz.Obligations `json:"limits"` // the most
}

// For is the card as the caller may see it: the skills that policy allows him
// now, and within what limits. It is not signed, since it is nobody else's.
func (c *cards) For(ctx context.Context, caller server.Caller) (*sdk.AgentCard, error) {
	p, now := caller.Principal, c.current()
	allowed, may := []terms{}, map[string]bool{}
	for _, o := range now.offers {
		dec, err := c.policy.Decide(ctx, authz.Query{
			Principal: p, Action: authz.ExecRun, Tenant: p.Tenant, Suspended: c.directory.Suspended(p.Tenant), Ceiling: c.directory.Ceiling(p.Tenant),
			Now: time.Now(), Vouched: p.Kind != identity.Agent, Via: caller.Door,
			Execution: &authz.ExecutionFacts{Language: o.Language, Sandbox: o.Sandbox, Network: "none", CodeBytes: 1},
			Node:      authz.NodeFacts{ID: string(c.node), Tier: o.Tier, RunAllowed: !c.noRun},
		})
		if err != nil {
			return nil, fmt.Errorf("what %s may run: %w", p, err)
		}
		if dec.Allow {
			allowed, may[a2a.LanguageSkill(o.Language)] = append(allowed, terms{o, dec.Obligations}), true
		}
	}
	card := *now.public
	card.Skills = slices.DeleteFunc(slices.Clone(card.Skills), func(s sdk.AgentSkill) bool {
		return s.ID == a2a.SkillID && len(may) == 0 || s.ID != a2a.SkillID && !may[s.ID]
	})
	if len(card.Skills) == 0 { // which a card must have
		card.Skills = []sdk.AgentSkill{{ID: "run-nothing", Name: "Run nothing", Description: "Policy lets " + p.String() + " run nothing on this node.", Tags: []string{"denied"}}}
	}
	card.Capabilities.Extensions = slices.Clone(card.Capabilities.Extensions)
	for i, e := range card.Capabilities.Extensions {
		if e.URI != a2a.ExecutionURI {
			continue
		}
		params := maps.Clone(e.Params)
		var err error
		if params["offers"], err = plainJSON(allowed); err != nil {
			return nil, err
		}
		params["caller"] = map[string]any{"principal": p.String(), "tenant": p.Tenant}
		card.Capabilities.Extensions[i].Params = params
	}
	return &card, nil
}

// plainJSON is v in the types that every binding carries.
func plainJSON(v any) (out any, err error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return out, json.Unmarshal(raw, &out)
}

// reachedAt is where others reach the doors: the base of the HTTP door's URLs,
// and the address for gRPC. A door that listens on every address has none of its
// own; without public_url it goes by the first name in its certificate.
func reachedAt(cfg *config, secure *tlsFiles) (base, grpcAddr string) {
	scheme, addr, grpcAddr := "http", cfg.HTTP, cfg.GRPC
	if secure != nil {
		scheme = "https"
	}
	if grpcAddr == "" {
		grpcAddr = addr
	}
	name := ""
	if public, err := url.Parse(cfg.PublicURL); err == nil && cfg.PublicURL != "" {
		name = public.Hostname()
	} else if secure != nil {
		if names := secure.state().certificate.Leaf.DNSNames; len(names) > 0 {
			name = names[0]
		}
	}
	for _, at := range []*string{&addr, &grpcAddr} {
		host, port, err := net.SplitHostPort(*at)
		if ip := net.ParseIP(host); err == nil && name != "" && (host == "" || ip != nil && ip.IsUnspecified()) {
			*at = net.JoinHostPort(name, port)
		}
	}
	if cfg.PublicURL != "" {
		return strings.TrimSuffix(cfg.PublicURL, "/"), grpcAddr
	}
	return scheme + "://" + addr, grpcAddr
}

func checkPublicURL(text string) error {
	u, err := url.Parse(text)
	if text != "" && (err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "") {
		return fmt.Errorf("%q is not a URL such as https://node1.example.com:8420", text)
	}
	return nil
}
