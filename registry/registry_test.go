package registry_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/audit/audittest"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/registry"
)

var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// The people of the tests, the same in every run.
var (
	keeper  = person(1)
	worker  = person(2)
	auditor = person(3)
	alice   = person(4) // admin of tenant acme
	bob     = person(5) // runner of tenant acme
	carol   = person(6) // not registered at first
)

const opsKey = "opskeyopsk" // an API key of role admin, tenant acme

func TestWhatTheLogSaysIsWhatTheTablesHold(t *testing.T) {
	log := audittest.New(t, genesisLeaf(t), registry.Admission{})
	reg := registry.New(log.Store)
	rec := log.Recorder(keeper)
	record := func(e audit.Entry, err error) uint64 {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		ack, err := rec.Record(t.Context(), signed(e, time.Now()))
		if err != nil {
			t.Fatalf("Record(%s %s) = %v", e.Kind, e.Body, err)
		}
		return ack.Index
	}

	if c, err := reg.Cluster(); err != nil || c != (registry.Cluster{Name: "test", Vouch: true, Rules: 2}) {
		t.Errorf("Cluster = %+v, %v", c, err)
	}
	members, err := reg.Members()
	if err != nil || len(members) != 3 || !reg.Member(worker.ID()) || reg.Member(carol.ID()) {
		t.Errorf("Members = %+v, %v", members, err)
	}

	added := record(registry.NewEntry(admin(), registry.AgentBody{
		Action: registry.Add, ID: carol.ID(), Name: "carol", Tenant: "acme", Roles: []string{"viewer", "runner", "runner"}, Labels: map[string]string{"team": "red"},
	}))
	want := registry.Agent{ID: carol.ID(), Name: "carol", Tenant: "acme", Roles: []string{"runner", "viewer"}, Labels: map[string]string{"team": "red"}, Since: added}
	if got, err := reg.AgentByName("acme", "carol"); err != nil || !cmp.Equal(got, want) {
		t.Errorf("AgentByName = %+v, %v; want %+v", got, err, want)
	}
	p, ok := reg.Agent(carol.ID())
	if wantP := (identity.Principal{Kind: identity.Agent, Name: carol.ID().DID(), Tenant: "acme", Roles: []string{"runner", "viewer"}, Labels: map[string]string{"team": "red"}}); !ok || !cmp.Equal(p, wantP) {
		t.Errorf("Agent = %+v, %v; want %+v", p, ok, wantP)
	}

	record(registry.NewEntry(admin(), registry.RoleBody{Action: registry.Grant, Principal: p.String(), Role: "operator", Tenant: "acme"}))
	record(registry.NewEntry(admin(), registry.RoleBody{Action: registry.Revoke, Principal: p.String(), Role: "viewer", Tenant: "acme"}))
	if p, ok = reg.Principal(p.String()); !ok || !slices.Equal(p.Roles, []string{"operator", "runner"}) {
		t.Errorf("Principal after grant and revoke = %+v, %v", p, ok)
	}

	revoked := record(registry.NewEntry(admin(), registry.AgentBody{Action: registry.Revoke, ID: carol.ID(), Tenant: "acme"}))
	if _, ok := reg.Agent(carol.ID()); ok {
		t.Error("a revoked agent is in force")
	}
	if a, err := reg.AgentByID(carol.ID()); err != nil || a.Revoked == nil || *a.Revoked != revoked || a.Roles != nil {
		t.Errorf("revoked agent = %+v, %v", a, err)
	}
	if _, err := reg.AgentByName("acme", "carol"); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("AgentByName of a revoked one = %v, want ErrNotFound", err)
	}

	record(registry.NewEntry(admin(), registry.KeyBody{Action: registry.Create, ID: "cicicicici", Name: "ci", Hash: hash(7), Tenant: "acme", Roles: []string{"runner"}, Expires: audit.FormatTime(time.Now().Add(time.Hour))}))
	k, err := reg.KeyByName("acme", "ci")
	if err != nil || k.Sum() != [32]byte(bytes.Repeat([]byte{7}, 32)) || k.ExpiresAt().Before(time.Now()) {
		t.Errorf("KeyByName = %+v, %v", k, err)
	}
	record(registry.NewEntry(admin(), registry.KeyBody{Action: registry.Rotate, ID: "cicicicici", Hash: hash(8), Tenant: "acme"}))
	if k, err = reg.KeyByID("cicicicici"); err != nil || k.Hash != hash(8) || k.Expires == "" || !slices.Equal(k.Roles, []string{"runner"}) {
		t.Errorf("rotated key = %+v, %v", k, err)
	}
	record(registry.NewEntry(admin(), registry.KeyBody{Action: registry.Revoke, ID: "cicicicici", Tenant: "acme"}))
	if _, ok := reg.Principal("service:cicicicici"); ok {
		t.Error("a revoked key is in force")
	}
	if keys, err := reg.Keys(); err != nil || len(keys) != 2 || !slices.Equal(keys[1].Roles, []string{"admin"}) {
		t.Errorf("Keys = %+v, %v", keys, err)
	}

	record(registry.NewEntry(admin(), registry.TenantBody{Action: registry.Create, Name: "initech"}))
	record(registry.NewEntry(admin(), registry.TenantBody{Action: registry.Set, Name: "initech", Suspended: true}))
	if tenant, err := reg.Tenant("initech"); err != nil || !tenant.Suspended {
		t.Errorf("Tenant = %+v, %v", tenant, err)
	}
	record(registry.NewEntry(admin(), registry.MemberBody{Action: registry.Add, ID: carol.ID(), Role: registry.Worker, Name: "n9", Addrs: []string{"/ip4/127.0.0.1/tcp/9"}}))
	if m, err := reg.MemberByID(carol.ID()); err != nil || m.Role != registry.Worker {
		t.Errorf("MemberByID = %+v, %v", m, err)
	}
	record(registry.NewEntry(admin(), registry.MemberBody{Action: registry.Remove, ID: carol.ID()}))
	if reg.Member(carol.ID()) {
		t.Error("a removed node is a member")
	}

	// Reading nobody finds nobody.
	for _, name := range []string{"", "agent:", "agent:did:key:z", "service:", "service:member/", "nobody", "node:" + carol.ID().DID(), strings.Repeat("x", 10_000)} {
		if p, ok := reg.Principal(name); ok {
			t.Errorf("Principal(%.30q) = %+v", name, p)
		}
	}
}

func TestExpiredKeyIsNotInForce(t *testing.T) {
	log := audittest.New(t, genesisLeaf(t), registry.Admission{})
	e, err := registry.NewEntry(admin(), registry.KeyBody{Action: registry.Create, ID: "short", Name: "short", Hash: hash(9), Tenant: "acme", Expires: audit.FormatTime(start)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := log.Recorder(keeper).Record(t.Context(), signed(e, time.Now())); err != nil {
		t.Fatal(err)
	}
	if p, ok := registry.New(log.Store).Principal("service:short"); ok {
		t.Errorf("an expired key is in force: %+v", p)
	}
}

func TestAdmission(t *testing.T) {
	behalf := func(e audit.Entry, name string) audit.Entry { e.OnBehalf = name; return e }
	tenant := func(e audit.Entry, name string) audit.Entry { e.Tenant = name; return e }
	member := func(b registry.MemberBody) audit.Entry { return entry(t, admin(), b) }
	agent := func(b registry.AgentBody) audit.Entry { return entry(t, admin(), b) }
	key := func(b registry.KeyBody) audit.Entry { return entry(t, admin(), b) }
	role := func(b registry.RoleBody) audit.Entry { return entry(t, admin(), b) }
	newAgent := registry.AgentBody{Action: registry.Add, ID: carol.ID(), Name: "carol", Tenant: "acme"}
	newKey := registry.KeyBody{Action: registry.Create, ID: "cicicicici", Name: "ci", Hash: hash(7), Tenant: "acme"}
	ops := "service:" + opsKey
	vouched := behalf(actor(intent(t), "node:"+keeper.ID().DID()), ops)

	policyOf := func(digest, before string) registry.PolicyBody {
		b := registry.PolicyBody{Action: registry.Apply, Digest: strings.Repeat(digest, 64), Bundle: "AAAA"}
		if before != "" {
			b.Before = strings.Repeat(before, 64)
		}
		return b
	}
	policy := func(b registry.PolicyBody) audit.Entry {
		e, err := registry.NewEntry(admin(), b)
		if err != nil {
			t.Fatal(err)
		}
		e.V, e.ID, e.Time = 1, "x", audit.FormatTime(start)
		return e
	}
	for _, c := range []struct {
		name   string
		author *identity.Key
		before []audit.Entry // admitted by the keeper first
		entry  audit.Entry
		want   string // code of the refusal; empty: admitted
	}{
		{name: "intent by a keeper", author: keeper, entry: intent(t)},
		{name: "intent by a worker", author: worker, entry: intent(t)},
		{name: "intent by an auditor", author: auditor, entry: intent(t), want: "author"},
		{name: "denial by an auditor", author: auditor, entry: denial(t), want: "author"},
		{name: "intent by a stranger", author: carol, entry: intent(t), want: "author"},
		{name: "intent by an agent who is no node", author: bob, entry: intent(t), want: "author"},
		{name: "intent without a decision", author: keeper, entry: func() audit.Entry { e := intent(t); e.Decision = nil; return e }(), want: "decision"},
		{name: "intent with a denial", author: keeper, entry: func() audit.Entry { e := intent(t); e.Decision = &audit.Decision{}; return e }(), want: "decision"},
		{name: "intent through a door that is no member", author: keeper, entry: body(intent(t), intentBody(carol.ID())), want: "door"},
		{name: "intent of nobody", author: keeper, entry: actor(intent(t), ""), want: "principal"},
		{name: "intent of a stranger", author: keeper, entry: actor(intent(t), "agent:"+carol.ID().DID()), want: "principal"},
		{name: "intent of a bare word", author: keeper, entry: actor(intent(t), "admin"), want: "principal"},
		{name: "intent in another tenant", author: keeper, entry: tenant(intent(t), "globex"), want: "tenant"},
		{name: "intent of a revoked agent", author: keeper, before: []audit.Entry{agent(registry.AgentBody{Action: registry.Revoke, ID: bob.ID(), Tenant: "acme"})}, entry: intent(t), want: "principal"},
		{name: "outcome of a revoked agent", author: worker, before: []audit.Entry{agent(registry.AgentBody{Action: registry.Revoke, ID: bob.ID(), Tenant: "acme"})}, entry: outcome(t)},
		{name: "intent in a suspended tenant", author: keeper, before: []audit.Entry{entry(t, admin(), registry.TenantBody{Action: registry.Set, Name: "acme", Suspended: true})}, entry: intent(t), want: "tenant_suspended"},
		{name: "outcome in a suspended tenant", author: keeper, before: []audit.Entry{entry(t, admin(), registry.TenantBody{Action: registry.Set, Name: "acme", Suspended: true})}, entry: outcome(t)},
		{name: "vouched intent", author: keeper, entry: vouched},
		{name: "vouched intent of a revoked key", author: keeper, before: []audit.Entry{key(registry.KeyBody{Action: registry.Revoke, ID: opsKey, Tenant: "acme"})}, entry: vouched, want: "principal"},
		{name: "vouched intent by no member", author: keeper, entry: actor(vouched, "node:"+carol.ID().DID()), want: "principal"},
		{name: "node on its own behalf", author: keeper, entry: actor(intent(t), "node:"+keeper.ID().DID()), want: "vouching"},
		{name: "intent of a key at its expiry", author: keeper, before: []audit.Entry{key(expires(newKey, start.Add(time.Hour)))}, entry: later(actor(intent(t), "service:cicicicici"), start.Add(time.Hour)), want: "principal"},
		{name: "intent of a key before its expiry", author: keeper, before: []audit.Entry{key(expires(newKey, start.Add(time.Hour)))}, entry: later(actor(intent(t), "service:cicicicici"), start.Add(time.Hour-time.Millisecond))},

		{name: "agent by a worker", author: worker, entry: agent(newAgent), want: "author"},
		{name: "agent", author: keeper, entry: agent(newAgent)},
		{name: "agent twice", author: keeper, before: []audit.Entry{agent(newAgent)}, entry: agent(newAgent), want: "exists"},
		{name: "agent of a taken name", author: keeper, entry: agent(registry.AgentBody{Action: registry.Add, ID: carol.ID(), Name: "bob", Tenant: "acme"}), want: "name_taken"},
		{name: "agent of a name taken elsewhere", author: keeper, entry: agent(registry.AgentBody{Action: registry.Add, ID: carol.ID(), Name: "bob", Tenant: "globex"})},
		{name: "agent of a freed name", author: keeper, before: []audit.Entry{agent(registry.AgentBody{Action: registry.Revoke, ID: bob.ID(), Tenant: "acme"})}, entry: agent(registry.AgentBody{Action: registry.Add, ID: carol.ID(), Name: "bob", Tenant: "acme"})},
		{name: "agent back from revocation", author: keeper, before: []audit.Entry{agent(registry.AgentBody{Action: registry.Revoke, ID: bob.ID(), Tenant: "acme"})}, entry: agent(registry.AgentBody{Action: registry.Add, ID: bob.ID(), Name: "bob", Tenant: "acme"}), want: "revoked"},
		{name: "agent in no tenant", author: keeper, entry: agent(registry.AgentBody{Action: registry.Add, ID: carol.ID(), Name: "carol", Tenant: "initech"}), want: "tenant"},
		{name: "agent revoked in another tenant", author: keeper, entry: agent(registry.AgentBody{Action: registry.Revoke, ID: bob.ID(), Tenant: "globex"}), want: "tenant"},
		{name: "agent revoked twice", author: keeper, before: []audit.Entry{agent(registry.AgentBody{Action: registry.Revoke, ID: bob.ID(), Tenant: "acme"})}, entry: agent(registry.AgentBody{Action: registry.Revoke, ID: bob.ID(), Tenant: "acme"}), want: "revoked"},
		{name: "no such agent", author: keeper, entry: agent(registry.AgentBody{Action: registry.Revoke, ID: carol.ID(), Tenant: "acme"}), want: "not_found"},
		{name: "agent by nobody", author: keeper, entry: actor(agent(newAgent), ""), want: "principal"},
		{name: "agent by a node", author: keeper, entry: actor(agent(newAgent), "node:"+keeper.ID().DID()), want: "principal"},
		{name: "agent with another tenant on the entry", author: keeper, entry: tenant(agent(newAgent), "globex"), want: "tenant"},
		{name: "agent body with a surplus member", author: keeper, entry: body(agent(newAgent), `{"action":"add","id":"`+string(carol.ID())+`","name":"c","tenant":"acme","admin":true}`), want: "malformed"},
		{name: "agent body with an unknown action", author: keeper, entry: body(agent(newAgent), `{"action":"promote","id":"`+string(carol.ID())+`","tenant":"acme"}`), want: "malformed"},
		{name: "agent body without an id", author: keeper, entry: body(agent(newAgent), `{"action":"add","name":"c","tenant":"acme"}`), want: "malformed"},
		{name: "agent body with a slash in its name", author: keeper, entry: body(agent(newAgent), `{"action":"add","id":"`+string(carol.ID())+`","name":"../x","tenant":"acme"}`), want: "malformed"},
		{name: "body null", author: keeper, entry: body(agent(newAgent), `null`), want: "malformed"},
		{name: "body empty", author: keeper, entry: body(agent(newAgent), ``), want: "malformed"},

		{name: "key", author: keeper, entry: key(newKey)},
		{name: "key by API key", author: keeper, entry: actor(key(newKey), ops)},
		{name: "key of a taken id", author: keeper, before: []audit.Entry{key(newKey)}, entry: key(registry.KeyBody{Action: registry.Create, ID: "cicicicici", Name: "x", Hash: hash(8), Tenant: "acme"}), want: "exists"},
		{name: "key of a taken name", author: keeper, before: []audit.Entry{key(newKey)}, entry: key(registry.KeyBody{Action: registry.Create, ID: "other", Name: "ci", Hash: hash(8), Tenant: "acme"}), want: "name_taken"},
		{name: "key of a taken secret", author: keeper, before: []audit.Entry{key(newKey)}, entry: key(registry.KeyBody{Action: registry.Create, ID: "other", Name: "x", Hash: hash(7), Tenant: "acme"}), want: "exists"},
		{name: "key rotated in another tenant", author: keeper, before: []audit.Entry{key(newKey)}, entry: key(registry.KeyBody{Action: registry.Rotate, ID: "cicicicici", Hash: hash(8), Tenant: "globex"}), want: "tenant"},
		{name: "key rotated", author: keeper, before: []audit.Entry{key(newKey)}, entry: key(registry.KeyBody{Action: registry.Rotate, ID: "cicicicici", Hash: hash(8)})},
		{name: "key rotated after revocation", author: keeper, before: []audit.Entry{key(newKey), key(registry.KeyBody{Action: registry.Revoke, ID: "cicicicici", Tenant: "acme"})}, entry: key(registry.KeyBody{Action: registry.Rotate, ID: "cicicicici", Hash: hash(8), Tenant: "acme"}), want: "revoked"},
		{name: "I9: key with more roles than its maker", author: keeper, entry: actor(key(registry.KeyBody{Action: registry.Create, ID: "x", Name: "x", Hash: hash(7), Tenant: "acme", Roles: []string{"admin"}}), "agent:"+bob.ID().DID()), want: "role"},
		{name: "I9: key with its maker's roles", author: keeper, entry: actor(key(registry.KeyBody{Action: registry.Create, ID: "x", Name: "x", Hash: hash(7), Tenant: "acme", Roles: []string{"runner"}}), "agent:"+bob.ID().DID())},
		{name: "I9: admin's key rotated by a runner", author: keeper, entry: actor(key(registry.KeyBody{Action: registry.Rotate, ID: opsKey, Hash: hash(8), Tenant: "acme"}), "agent:"+bob.ID().DID()), want: "role"},
		{name: "I9: runner makes himself admin", author: keeper, entry: actor(role(registry.RoleBody{Action: registry.Grant, Principal: "agent:" + bob.ID().DID(), Role: "admin", Tenant: "acme"}), "agent:"+bob.ID().DID()), want: "role"},

		{name: "role", author: keeper, entry: role(registry.RoleBody{Action: registry.Grant, Principal: "agent:" + bob.ID().DID(), Role: "viewer", Tenant: "acme"})},
		{name: "role twice", author: keeper, entry: role(registry.RoleBody{Action: registry.Grant, Principal: "agent:" + bob.ID().DID(), Role: "runner", Tenant: "acme"}), want: "exists"},
		{name: "role never held", author: keeper, entry: role(registry.RoleBody{Action: registry.Revoke, Principal: "agent:" + bob.ID().DID(), Role: "viewer", Tenant: "acme"}), want: "not_found"},
		{name: "role of a node", author: keeper, entry: role(registry.RoleBody{Action: registry.Grant, Principal: "node:" + worker.ID().DID(), Role: "admin", Tenant: "acme"}), want: "malformed"},
		{name: "role in another tenant", author: keeper, entry: role(registry.RoleBody{Action: registry.Grant, Principal: "agent:" + bob.ID().DID(), Role: "viewer", Tenant: "globex"}), want: "tenant"},
		{name: "role of a stranger", author: keeper, entry: role(registry.RoleBody{Action: registry.Grant, Principal: "agent:" + carol.ID().DID(), Role: "viewer", Tenant: "acme"}), want: "not_found"},
		{name: "one of two admins leaves", author: keeper, entry: agent(registry.AgentBody{Action: registry.Revoke, ID: alice.ID(), Tenant: "acme"})},
		{name: "last admin revoked", author: keeper, before: []audit.Entry{key(registry.KeyBody{Action: registry.Revoke, ID: opsKey, Tenant: "acme"})}, entry: agent(registry.AgentBody{Action: registry.Revoke, ID: alice.ID(), Tenant: "acme"}), want: "last_admin"},
		{name: "last admin loses the role", author: keeper, before: []audit.Entry{key(registry.KeyBody{Action: registry.Revoke, ID: opsKey, Tenant: "acme"})}, entry: role(registry.RoleBody{Action: registry.Revoke, Principal: "agent:" + alice.ID().DID(), Role: "admin", Tenant: "acme"}), want: "last_admin"},
		{name: "last admin's key", author: keeper, before: []audit.Entry{agent(registry.AgentBody{Action: registry.Revoke, ID: alice.ID(), Tenant: "acme"})}, entry: actor(key(registry.KeyBody{Action: registry.Revoke, ID: opsKey, Tenant: "acme"}), ops), want: "last_admin"},

		{name: "tenant", author: keeper, entry: entry(t, admin(), registry.TenantBody{Action: registry.Create, Name: "initech"})},
		{name: "tenant twice", author: keeper, entry: entry(t, admin(), registry.TenantBody{Action: registry.Create, Name: "acme"}), want: "exists"},
		{name: "no such tenant", author: keeper, entry: entry(t, admin(), registry.TenantBody{Action: registry.Set, Name: "initech"}), want: "not_found"},

		{name: "worker joins", author: keeper, entry: member(registry.MemberBody{Action: registry.Add, ID: carol.ID(), Role: registry.Worker})},
		{name: "worker joins twice", author: keeper, entry: member(registry.MemberBody{Action: registry.Add, ID: worker.ID(), Role: registry.Worker}), want: "exists"},
		{name: "worker of a taken name", author: keeper, entry: member(registry.MemberBody{Action: registry.Add, ID: carol.ID(), Role: registry.Worker, Name: "n1"}), want: "name_taken"},
		{name: "worker let in by a node alone", author: keeper, entry: actor(member(registry.MemberBody{Action: registry.Add, ID: carol.ID(), Role: registry.Worker}), "node:"+keeper.ID().DID()), want: "role"},
		{name: "worker let in by a runner", author: keeper, entry: actor(member(registry.MemberBody{Action: registry.Add, ID: carol.ID(), Role: registry.Worker}), "agent:"+bob.ID().DID()), want: "role"},
		{name: "keeper joins", author: keeper, entry: member(registry.MemberBody{Action: registry.Add, ID: carol.ID(), Role: registry.Keeper})},
		{name: "keeper who does not vote changes the tables", author: carol, before: []audit.Entry{member(registry.MemberBody{Action: registry.Add, ID: carol.ID(), Role: registry.Keeper})}, entry: entry(t, admin(), registry.TenantBody{Action: registry.Create, Name: "initech"}), want: "author"},
		{name: "keeper who does not vote runs code", author: carol, before: []audit.Entry{member(registry.MemberBody{Action: registry.Add, ID: carol.ID(), Role: registry.Keeper})}, entry: intent(t)},
		{name: "last keeper leaves", author: keeper, entry: member(registry.MemberBody{Action: registry.Remove, ID: keeper.ID()}), want: "keepers"},
		{name: "worker leaves by its own word", author: keeper, entry: actor(member(registry.MemberBody{Action: registry.Remove, ID: worker.ID()}), "node:"+worker.ID().DID())},
		{name: "worker removed by another node", author: keeper, entry: actor(member(registry.MemberBody{Action: registry.Remove, ID: worker.ID()}), "node:"+keeper.ID().DID()), want: "principal"},
		{name: "worker removed by a runner", author: keeper, entry: actor(member(registry.MemberBody{Action: registry.Remove, ID: worker.ID()}), "agent:"+bob.ID().DID()), want: "role"},
		{name: "worker leaves and writes", author: worker, before: []audit.Entry{member(registry.MemberBody{Action: registry.Remove, ID: worker.ID()})}, entry: outcome(t), want: "author"},
		{name: "stranger leaves", author: keeper, entry: member(registry.MemberBody{Action: registry.Remove, ID: carol.ID()}), want: "not_found"},

		{name: "second genesis", author: keeper, entry: audit.Entry{V: 1, Kind: audit.KindGenesis, ID: "x", Time: audit.FormatTime(start), Body: []byte(`{}`)}, want: "genesis"},
		{name: "policy of no action", author: keeper, entry: audit.Entry{V: 1, Kind: audit.KindPolicy, ID: "x", Time: audit.FormatTime(start), Actor: admin(), Body: []byte(`{}`)}, want: "malformed"},
		{name: "policy", author: keeper, entry: policy(policyOf("1", ""))},
		{name: "policy by a runner", author: keeper, entry: actor(policy(policyOf("1", "")), "agent:"+bob.ID().DID()), want: "role"},
		{name: "policy by a worker", author: worker, entry: policy(policyOf("1", "")), want: "author"},
		{name: "policy after one that was not seen", author: keeper, before: []audit.Entry{policy(policyOf("1", ""))}, entry: policy(policyOf("2", "")), want: "conflict"},
		{name: "policy after another", author: keeper, before: []audit.Entry{policy(policyOf("1", ""))}, entry: policy(policyOf("2", "1"))},
		{name: "policy twice", author: keeper, before: []audit.Entry{policy(policyOf("1", ""))}, entry: policy(policyOf("1", "1")), want: "exists"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tables := genesisTables(t)
			for i, e := range c.before {
				if err := admit(tables, uint64(1+i), keeper.ID(), e); err != nil {
					t.Fatalf("before: %v", err)
				}
			}
			err := admit(tables, 10, c.author.ID(), c.entry)
			if got := code(err); got != c.want {
				t.Errorf("Admit = %v, want code %q", err, c.want)
			}
		})
	}
}

func TestVouchingNeedsTheClustersConsent(t *testing.T) {
	g := genesis()
	g.Vouch = false
	tables := tablesOf(t, g)
	e := intent(t)
	e.Actor, e.OnBehalf = "node:"+keeper.ID().DID(), "service:"+opsKey
	if got := code(admit(tables, 1, keeper.ID(), e)); got != "vouching" {
		t.Errorf("vouched intent: %q, want vouching", got)
	}
	change := entry(t, "service:"+opsKey, registry.TenantBody{Action: registry.Create, Name: "x"})
	if got := code(admit(tables, 1, keeper.ID(), change)); got != "vouching" {
		t.Errorf("change by API key: %q, want vouching", got)
	}
	if err := admit(tables, 1, keeper.ID(), intent(t)); err != nil {
		t.Errorf("signed intent: %v", err)
	}
}

func TestGenesisLeafIsTheSameForTheSameCluster(t *testing.T) {
	g := genesis()
	one := genesisLeaf(t)
	slices.Reverse(g.Members)
	slices.Reverse(g.Tenants)
	slices.Reverse(g.Agents)
	two, err := registry.GenesisLeaf(g)
	if err != nil || !bytes.Equal(one, two) {
		t.Errorf("another order gives another leaf, or %v", err)
	}
	b, err := registry.ReadGenesis(one)
	if err != nil || b.Cluster != "test" || len(b.Members) != 3 || len(b.Keys) != 1 {
		t.Errorf("ReadGenesis = %+v, %v", b, err)
	}
	g.Time = g.Time.Add(time.Millisecond)
	if three, err := registry.GenesisLeaf(g); err != nil || bytes.Equal(one, three) {
		t.Errorf("another time gives the same leaf, or %v", err)
	}
}

func TestBadGenesisIsRefused(t *testing.T) {
	for name, change := range map[string]func(*registry.Genesis){
		"no name":         func(g *registry.Genesis) { g.Cluster = "" },
		"no keeper":       func(g *registry.Genesis) { g.Members = g.Members[1:] },
		"no admin":        func(g *registry.Genesis) { g.Keys, g.Agents = nil, nil },
		"two of one node": func(g *registry.Genesis) { g.Members = append(g.Members, g.Members[0]) },
		"unknown tenant":  func(g *registry.Genesis) { g.Tenants = nil },
		"bad id":          func(g *registry.Genesis) { g.Members[0].ID = "x" },
		"expired admin":   func(g *registry.Genesis) { g.Agents, g.Keys[0].Expires = nil, audit.FormatTime(start) },
		"too many":        func(g *registry.Genesis) { g.Tenants = numbered(1000) },
	} {
		g := genesis()
		change(&g)
		if leaf, err := registry.GenesisLeaf(g); err == nil || leaf != nil {
			t.Errorf("%s: GenesisLeaf succeeded", name)
		}
	}
	for _, leaf := range []string{"", "{}", "null", string(audittest.Genesis(t))[1:]} {
		if _, err := registry.ReadGenesis([]byte(leaf)); err == nil {
			t.Errorf("ReadGenesis(%.20q) succeeded", leaf)
		}
	}
}

func TestDamagedRowStopsTheKeeper(t *testing.T) {
	tables := genesisTables(t)
	if err := tables.Put("member/"+string(keeper.ID()), []byte("{")); err != nil {
		t.Fatal(err)
	}
	err := admit(tables, 1, keeper.ID(), intent(t))
	if err == nil || code(err) != "" {
		t.Errorf("Admit = %v, want an error that is no refusal", err)
	}
}

// admit has agents sign their changes, as they do.
func admit(tables registry.Memory, index uint64, author identity.ID, e audit.Entry) error {
	at := start
	if e.Time != "" {
		at, _ = audit.ParseTime(e.Time)
	}
	return admitAs(tables, index, author, signed(e, at))
}

// signed is the entry with the signature of its actor, if that is one of ours.
func signed(e audit.Entry, at time.Time) audit.Entry {
	for _, who := range []*identity.Key{alice, bob, carol, keeper, worker, auditor} {
		if e.Actor == "agent:"+who.ID().DID() {
			return registry.SignEntry(who, "test", at, e)
		}
	}
	return e
}

func admitAs(tables registry.Memory, index uint64, author identity.ID, e audit.Entry) error {
	e.V, e.Author = audit.EntryVersion, author
	if e.ID == "" {
		e.ID = fmt.Sprint("e", index)
	}
	if e.Time == "" {
		e.Time = audit.FormatTime(start)
	}
	return registry.Admission{}.Admit(tables, index, author, e)
}

// code of a refusal; empty for nil and for other errors.
func code(err error) string {
	if refusal, ok := errors.AsType[*audit.Refusal](err); ok {
		return refusal.Code
	}
	return ""
}

func entry[B registry.MemberBody | registry.AgentBody | registry.KeyBody | registry.TenantBody | registry.RoleBody](t *testing.T, actor string, b B) audit.Entry {
	t.Helper()
	e, err := registry.NewEntry(actor, b)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func later(e audit.Entry, at time.Time) audit.Entry {
	e.Time = audit.FormatTime(at)
	return e
}

func actor(e audit.Entry, name string) audit.Entry {
	e.Actor = name
	return e
}

func body(e audit.Entry, text string) audit.Entry {
	e.Body = []byte(text)
	return e
}

func intent(t testing.TB) audit.Entry {
	t.Helper()
	return audit.Entry{
		Kind: audit.KindIntent, Actor: "agent:" + bob.ID().DID(), Tenant: "acme", Task: "t1", Attempt: 1,
		Decision: &audit.Decision{Allow: true}, Body: []byte(intentBody(keeper.ID())),
	}
}

func intentBody(door identity.ID) string {
	return `{"door":"` + string(door) + `","executor":"` + string(keeper.ID()) + `","language":"python","lease_ms":1,"network":"none","request":"` + hash(1) + `","sandbox":"process"}`
}

func outcome(t *testing.T) audit.Entry {
	t.Helper()
	ref := uint64(1)
	return audit.Entry{Kind: audit.KindOutcome, Actor: "agent:" + bob.ID().DID(), Tenant: "acme", Task: "t1", Attempt: 1, Ref: &ref, Body: []byte(`{"cpu_ms":0,"exit_code":0,"peak_memory":0,"status":"succeeded","wall_ms":0}`)}
}

func denial(t *testing.T) audit.Entry {
	t.Helper()
	return audit.Entry{Kind: audit.KindDenial, Actor: "unauthenticated", Body: []byte(`{"code":"signature"}`)}
}

func expires(b registry.KeyBody, at time.Time) registry.KeyBody {
	b.Expires = audit.FormatTime(at)
	return b
}

func admin() string { return "agent:" + alice.ID().DID() }

func genesis() registry.Genesis {
	return registry.Genesis{
		Cluster: "test", Time: start, Vouch: true, Tenants: []string{"acme", "globex"},
		Members: []registry.MemberBody{
			{ID: keeper.ID(), Role: registry.Keeper, Name: "n1", Addrs: []string{"/ip4/127.0.0.1/tcp/1"}},
			{ID: worker.ID(), Role: registry.Worker, Name: "n2"},
			{ID: auditor.ID(), Role: registry.Auditor, Name: "n3"},
		},
		Agents: []registry.AgentBody{
			{ID: alice.ID(), Name: "alice", Tenant: "acme", Roles: []string{"admin"}},
			{ID: bob.ID(), Name: "bob", Tenant: "acme", Roles: []string{"runner"}},
		},
		Keys: []registry.KeyBody{{ID: opsKey, Name: "ops", Hash: hash(1), Tenant: "acme", Roles: []string{"admin"}}},
	}
}

func genesisLeaf(t *testing.T) []byte {
	t.Helper()
	leaf, err := registry.GenesisLeaf(genesis())
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

func genesisTables(t testing.TB) registry.Memory {
	t.Helper()
	return tablesOf(t, genesis())
}

func tablesOf(t testing.TB, g registry.Genesis) registry.Memory {
	t.Helper()
	leaf, err := registry.GenesisLeaf(g)
	if err != nil {
		t.Fatal(err)
	}
	e, err := audit.DecodeEntry(leaf)
	if err != nil {
		t.Fatal(err)
	}
	tables := registry.Memory{}
	if err := (registry.Admission{}).Admit(tables, 0, "", e); err != nil {
		t.Fatal(err)
	}
	return tables
}

func hash(b byte) string { return strings.Repeat(fmt.Sprintf("%02x", b), 32) }

func numbered(n int) []string {
	names := []string{"acme", "globex"}
	for i := range n {
		names = append(names, fmt.Sprint("t", i))
	}
	return names
}

func person(n byte) *identity.Key {
	key, err := identity.FromSeed(bytes.Repeat([]byte{n}, 32))
	if err != nil {
		panic(err)
	}
	return key
}
