package registry_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/registry"
)

// A node cannot speak for an agent: its changes bear its own signature, over just
// them, for this cluster, now, once.
func TestAgentsSignTheirChanges(t *testing.T) {
	unsigned := entry(t, admin(), registry.TenantBody{Action: registry.Create, Name: "initech"})
	at := func(key *identity.Key, cluster string, at time.Time, e audit.Entry) audit.Entry {
		return registry.SignEntry(key, cluster, at, e)
	}
	good := at(alice, "test", start, unsigned)
	for name, c := range map[string]struct {
		entry audit.Entry
		want  string
	}{
		"signed":                   {good, ""},
		"not signed":               {unsigned, "signature"},
		"by another":               {at(bob, "test", start, unsigned), "signature"},
		"for another cluster":      {at(alice, "prod", start, unsigned), "signature"},
		"a little late":            {at(alice, "test", start.Add(-4*time.Minute), unsigned), ""},
		"too late":                 {at(alice, "test", start.Add(-6*time.Minute), unsigned), "signature"},
		"too early":                {at(alice, "test", start.Add(6*time.Minute), unsigned), "signature"},
		"another body":             {body(good, strings.Replace(string(good.Body), "initech", "hooli", 1)), "tenant"},
		"another flag in the body": {body(good, strings.Replace(string(good.Body), `"name"`, `"ceiling":{},"name"`, 1)), "signature"},
		"no at-most-once key":      {func() audit.Entry { e := good; e.Once = nil; return e }(), "signature"},
		"another at-most-once key": {func() audit.Entry { e := good; e.Once = &audit.Once{Key: hash(1), Digest: hash(2)}; return e }(), "signature"},
		"in a key's name":          {actor(good, "service:"+opsKey), "signature"},
		"a malformed signature":    {body(good, strings.Replace(string(good.Body), `"signature":"`, `"signature":"!`, 1)), "malformed"},
	} {
		if got := code(admitAs(genesisTables(t), 1, keeper.ID(), c.entry)); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	// A log from before replays as it was written.
	old := genesisTables(t)
	if err := old.Put("cluster", []byte(`{"name":"test","vouch":true}`)); err != nil {
		t.Fatal(err)
	}
	if err := admitAs(old, 1, keeper.ID(), unsigned); err != nil {
		t.Errorf("unsigned in a cluster of older rules: %v", err)
	}
}

// Suspension, rotation, scopes, ceilings, layers and mandates, each against who
// may and who may not.
func TestAuthority(t *testing.T) {
	ops := "service:" + opsKey
	bobIs, carolIs := bob.ID(), carol.ID()
	agent := func(action string, more ...func(*registry.AgentBody)) audit.Entry {
		b := registry.AgentBody{Action: action, ID: bobIs}
		for _, m := range more {
			m(&b)
		}
		return entry(t, admin(), b)
	}
	rotated := func(until string) audit.Entry {
		return agent(registry.Rotate, func(b *registry.AgentBody) { b.To, b.Until = carolIs, until })
	}
	hour := audit.FormatTime(start.Add(time.Hour))
	limited := entry(t, admin(), registry.KeyBody{Action: registry.Create, ID: "limited", Name: "limited", Hash: hash(5), Tenant: "acme", Roles: []string{"admin"}, Scopes: []string{"key.create", "key.list"}})
	byLimited := func(e audit.Entry) audit.Entry { return actor(e, "service:limited") }
	newKey := func(scopes ...string) audit.Entry {
		return entry(t, admin(), registry.KeyBody{Action: registry.Create, ID: "new", Name: "new", Hash: hash(6), Tenant: "acme", Scopes: scopes})
	}
	limit := func(b registry.TenantBody) audit.Entry {
		b.Action, b.Name = registry.Limit, "acme"
		return entry(t, admin(), b)
	}
	operator := entry(t, admin(), registry.RoleBody{Action: registry.Grant, Principal: "agent:" + bobIs.DID(), Role: "operator", Tenant: "acme"})
	byBob := func(e audit.Entry) audit.Entry { return actor(e, "agent:"+bobIs.DID()) }
	policy := func(layer string, author *registry.BundleSignature) audit.Entry {
		e, err := registry.NewEntry(ops, registry.PolicyBody{Action: registry.Apply, Digest: hash(9), Bundle: "AAAA", Layer: layer, Author: author})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	by := func(key *identity.Key, layer string) *registry.BundleSignature {
		s := registry.SignBundle(key, layer, hash(9))
		return &s
	}
	payload := []byte(`{"by":"` + bobIs.DID() + `"}`)
	sum := sha256.Sum256(payload)
	block := hex.EncodeToString(sum[:])
	end := func(actor string, b registry.MandateBody) audit.Entry {
		b.Action, b.Tenant = registry.Revoke, "acme"
		e, err := registry.NewEntry(actor, b)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	shown := registry.MandateBody{ID: block, Block: base64.StdEncoding.EncodeToString(payload)}
	under := intent(t)
	under.Actor, under.OnBehalf = "agent:"+bobIs.DID(), "agent:"+bobIs.DID()
	under.Body = []byte(strings.Replace(intentBody(keeper.ID()), `"network"`, `"mandate":[{"id":"`+block+`"}],"network"`, 1))
	vouched := actor(intent(t), ops)

	for _, c := range []struct {
		name   string
		before []audit.Entry
		entry  audit.Entry
		author *identity.Key
		want   string
	}{
		{name: "suspended", before: []audit.Entry{agent(registry.Suspend)}, entry: intent(t), want: "principal"},
		{name: "suspended twice", before: []audit.Entry{agent(registry.Suspend)}, entry: agent(registry.Suspend), want: "exists"},
		{name: "resumed", before: []audit.Entry{agent(registry.Suspend), agent(registry.Resume)}, entry: intent(t)},
		{name: "resumed by one who could not give its roles", before: []audit.Entry{agent(registry.Suspend)}, entry: byBob(agent(registry.Resume)), want: "principal"},
		{name: "last admin suspended", before: []audit.Entry{entry(t, admin(), registry.KeyBody{Action: registry.Revoke, ID: opsKey})}, entry: entry(t, admin(), registry.AgentBody{Action: registry.Suspend, ID: alice.ID()}), want: "last_admin"},
		{name: "rotated", before: []audit.Entry{rotated("")}, entry: intent(t), want: "principal"},
		{name: "rotated, the new key", before: []audit.Entry{rotated("")}, entry: actor(intent(t), "agent:"+carolIs.DID())},
		{name: "rotated with overlap", before: []audit.Entry{rotated(hour)}, entry: intent(t)},
		{name: "after the overlap", before: []audit.Entry{rotated(hour)}, entry: later(intent(t), start.Add(time.Hour)), want: "principal"},
		{name: "rotated to a known key", entry: agent(registry.Rotate, func(b *registry.AgentBody) { b.To = alice.ID() }), want: "exists"},
		{name: "rotated to itself", entry: agent(registry.Rotate, func(b *registry.AgentBody) { b.To = bobIs }), want: "exists"},
		{name: "an admin's key, by a runner", entry: byBob(entry(t, admin(), registry.AgentBody{Action: registry.Rotate, ID: alice.ID(), To: carolIs})), want: "role"},

		{name: "narrower key", before: []audit.Entry{limited}, entry: byLimited(newKey("key.list"))},
		{name: "wider key", before: []audit.Entry{limited}, entry: byLimited(newKey("key.list", "exec.run")), want: "scope"},
		{name: "key of all scopes", before: []audit.Entry{limited}, entry: byLimited(newKey()), want: "scope"},
		{name: "role by a limited key", before: []audit.Entry{limited}, entry: byLimited(operator), want: "scope"},
		{name: "rotation of a wider key", before: []audit.Entry{limited}, entry: byLimited(entry(t, admin(), registry.KeyBody{Action: registry.Rotate, ID: opsKey, Hash: hash(7)})), want: "scope"},
		{name: "rotation to the same secret", entry: entry(t, admin(), registry.KeyBody{Action: registry.Rotate, ID: opsKey, Hash: hash(1)}), want: "exists"},

		{name: "a node saw a key", entry: entry(t, "node:"+keeper.ID().DID(), registry.KeyBody{Action: registry.Used, ID: opsKey})},
		{name: "a worker saw a key", author: worker, entry: entry(t, "node:"+worker.ID().DID(), registry.KeyBody{Action: registry.Used, ID: opsKey})},
		{name: "a node says what another saw", entry: entry(t, "node:"+worker.ID().DID(), registry.KeyBody{Action: registry.Used, ID: opsKey}), want: "principal"},
		{name: "a node makes a key", entry: entry(t, "node:"+keeper.ID().DID(), registry.KeyBody{Action: registry.Create, ID: "n", Name: "n", Hash: hash(8), Tenant: "acme"}), want: "principal"},
		{name: "an admin saw a key", entry: entry(t, admin(), registry.KeyBody{Action: registry.Used, ID: opsKey}), want: "principal"},

		{name: "ceiling", entry: limit(registry.TenantBody{Ceiling: &registry.Ceiling{Network: []string{"*.example.org:443"}}})},
		{name: "ceiling by a runner", entry: byBob(limit(registry.TenantBody{})), want: "role"},
		{name: "suspension by an operator", before: []audit.Entry{operator}, entry: byBob(entry(t, admin(), registry.TenantBody{Action: registry.Set, Name: "acme", Suspended: true})), want: "role"},
		{name: "a ceiling leaves the suspension", before: []audit.Entry{entry(t, admin(), registry.TenantBody{Action: registry.Set, Name: "acme", Suspended: true}), limit(registry.TenantBody{})}, entry: intent(t), want: "tenant_suspended"},
		{name: "vouched where any node may", entry: vouched},
		{name: "vouched by the one who may", before: []audit.Entry{limit(registry.TenantBody{Vouchers: []string{string(keeper.ID())}})}, entry: vouched},
		{name: "vouched by one who may not", before: []audit.Entry{limit(registry.TenantBody{Vouchers: []string{string(worker.ID())}})}, entry: vouched, want: "vouching"},
		{name: "vouched where none may", before: []audit.Entry{limit(registry.TenantBody{Vouchers: []string{registry.NoVoucher}})}, entry: vouched, want: "vouching"},
		{name: "a change vouched where none may", before: []audit.Entry{limit(registry.TenantBody{Vouchers: []string{registry.NoVoucher}})}, entry: actor(newKey(), ops), want: "vouching"},

		{name: "additions by an operator", before: []audit.Entry{operator}, entry: byBob(policy(registry.LayerAdditions, nil))},
		{name: "the base by an operator", before: []audit.Entry{operator}, entry: byBob(policy(registry.LayerBase, nil)), want: "role"},
		{name: "additions by a runner", entry: byBob(policy(registry.LayerAdditions, nil)), want: "role"},
		{name: "a signed bundle", entry: policy(registry.LayerBase, by(alice, registry.LayerBase))},
		{name: "signed for another layer", entry: policy(registry.LayerBase, by(alice, registry.LayerAdditions)), want: "signature"},
		{name: "signed by one who may not", entry: policy(registry.LayerBase, by(bob, registry.LayerBase)), want: "signature"},
		{name: "signed by a stranger", entry: policy(registry.LayerBase, by(carol, registry.LayerBase)), want: "signature"},

		{name: "under a mandate", entry: under},
		{name: "under a revoked mandate", before: []audit.Entry{end("agent:"+bobIs.DID(), shown)}, entry: under, want: "mandate_revoked"},
		{name: "mandate by who only knows its id", entry: end("agent:"+bobIs.DID(), registry.MandateBody{ID: block}), want: "role"},
		{name: "mandate by an admin", entry: end(ops, registry.MandateBody{ID: block})},
		{name: "mandate twice", before: []audit.Entry{end(ops, registry.MandateBody{ID: block})}, entry: end(ops, registry.MandateBody{ID: block}), want: "exists"},
		{name: "mandate with a block of another id", entry: end("agent:"+bobIs.DID(), registry.MandateBody{ID: hash(3), Block: shown.Block}), want: "role"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tables := genesisTables(t)
			for i, e := range c.before {
				if err := admit(tables, uint64(1+i), keeper.ID(), e); err != nil {
					t.Fatalf("before: %v", err)
				}
			}
			author := keeper
			if c.author != nil {
				author = c.author
			}
			if got := code(admit(tables, 10, author.ID(), c.entry)); got != c.want {
				t.Errorf("Admit: %q, want %q", got, c.want)
			}
		})
	}
}

func TestAClusterCanWantSignedPolicies(t *testing.T) {
	g := genesis()
	g.SignedPolicy = true
	bare, err := registry.NewEntry("service:"+opsKey, registry.PolicyBody{Action: registry.Apply, Digest: hash(9), Bundle: "AAAA"})
	if err != nil {
		t.Fatal(err)
	}
	if got := code(admit(tablesOf(t, g), 1, keeper.ID(), bare)); got != "signature" {
		t.Errorf("an unsigned policy: %q", got)
	}
	sig := registry.SignBundle(alice, registry.LayerBase, hash(9))
	signed, err := registry.NewEntry("service:"+opsKey, registry.PolicyBody{Action: registry.Apply, Digest: hash(9), Bundle: "AAAA", Author: &sig})
	if err != nil {
		t.Fatal(err)
	}
	if err := admit(tablesOf(t, g), 1, keeper.ID(), signed); err != nil {
		t.Errorf("a signed bundle: %v", err)
	}
	if err := admit(tablesOf(t, g), 1, keeper.ID(), actor(bare, admin())); err != nil {
		t.Errorf("a change signed by an admin: %v", err)
	}
}

func FuzzChangeEntry(f *testing.F) {
	f.Add("tenant", `{"action":"limit","name":"acme","ceiling":{"network":["*:443"]}}`)
	f.Add("key", `{"action":"rotate","id":"k","hash":"`+hash(1)+`"}`)
	f.Add("mandate", `{"action":"revoke","id":"`+hash(1)+`","tenant":"acme","signed":{"at":"","nonce":"","signature":""}}`)
	f.Add("policy", `{"action":"apply","bundle":"AAAA","digest":"`+hash(1)+`","layer":"additions"}`)
	f.Fuzz(func(t *testing.T, kind, text string) {
		e, err := registry.ChangeEntry(admin(), audit.Kind(kind), []byte(text))
		if err != nil {
			if code(err) == "" && e.Body != nil {
				t.Errorf("ChangeEntry = %+v, %v", e, err)
			}
			return
		}
		// What can be written can be judged, and is only refused.
		if err := admit(genesisTables(t), 1, keeper.ID(), e); err != nil && code(err) == "" {
			t.Errorf("Admit(%s) = %v", e.Body, err)
		}
	})
}
