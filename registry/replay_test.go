package registry_test

import (
	"errors"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/audit/audittest"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/registry"
)

// I4, Admit is pure: whoever replays the admitted entries has the same tables,
// and what was refused leaves nothing behind.
func TestReplayGivesEqualTables(t *testing.T) {
	people := []*identity.Key{keeper, worker, auditor, alice, bob, carol}
	names := []string{"alice", "bob", "carol", "ops"}
	tenants := []string{"acme", "globex"}
	roles := []string{"admin", "runner", "viewer"}
	keys := []string{opsKey, "k1", "k2"}
	genesis := genesisTables(t)

	rapid.Check(t, func(rt *rapid.T) {
		person := func() identity.ID { return rapid.SampledFrom(people).Draw(rt, "who").ID() }
		tenant := func() string { return rapid.SampledFrom(tenants).Draw(rt, "tenant") }
		some := func() []string { return rapid.SliceOfN(rapid.SampledFrom(roles), 0, 2).Draw(rt, "roles") }
		principal := func() string {
			if rapid.Bool().Draw(rt, "is key") {
				return "service:" + rapid.SampledFrom(keys).Draw(rt, "key")
			}
			return "agent:" + person().DID()
		}
		live := maps.Clone(genesis)
		var admitted []audit.Entry
		var authors []identity.ID
		for i := range rapid.IntRange(1, 40).Draw(rt, "entries") {
			var e audit.Entry
			var err error
			switch rapid.IntRange(0, 5).Draw(rt, "kind") {
			case 0:
				b := registry.AgentBody{Action: registry.Revoke, ID: person(), Tenant: tenant()}
				if rapid.Bool().Draw(rt, "add") {
					b = registry.AgentBody{Action: registry.Add, ID: person(), Name: rapid.SampledFrom(names).Draw(rt, "name"), Tenant: tenant(), Roles: some()}
				}
				e, err = registry.NewEntry(principal(), b)
			case 1:
				b := registry.KeyBody{Action: registry.Revoke, ID: rapid.SampledFrom(keys).Draw(rt, "key"), Tenant: tenant()}
				if rapid.Bool().Draw(rt, "create") {
					b = registry.KeyBody{Action: registry.Create, ID: b.ID, Name: rapid.SampledFrom(names).Draw(rt, "name"), Hash: hash(rapid.Byte().Draw(rt, "hash")), Tenant: tenant(), Roles: some()}
				}
				e, err = registry.NewEntry(principal(), b)
			case 2:
				e, err = registry.NewEntry(principal(), registry.RoleBody{
					Action:    rapid.SampledFrom([]string{registry.Grant, registry.Revoke}).Draw(rt, "action"),
					Principal: principal(), Role: rapid.SampledFrom(roles).Draw(rt, "role"), Tenant: tenant(),
				})
			case 3:
				e, err = registry.NewEntry(principal(), registry.TenantBody{Action: registry.Set, Name: tenant(), Suspended: rapid.Bool().Draw(rt, "suspended")})
			case 4:
				b := registry.MemberBody{Action: registry.Remove, ID: person()}
				if rapid.Bool().Draw(rt, "join") {
					b = registry.MemberBody{Action: registry.Add, ID: b.ID, Role: registry.Worker}
				}
				e, err = registry.NewEntry(principal(), b)
			default:
				e = intent(t)
				e.Actor = principal()
			}
			if err != nil {
				rt.Fatal(err)
			}
			author, before := person(), maps.Clone(live)
			switch err := admit(live, uint64(len(admitted)+1), author, e); {
			case err == nil:
				admitted, authors = append(admitted, e), append(authors, author)
			case code(err) == "":
				rt.Fatalf("entry %d: %v is no refusal", i, err)
			default:
				live = before // as the store does
			}
		}
		again := maps.Clone(genesis)
		for i, e := range admitted {
			if err := admit(again, uint64(i+1), authors[i], e); err != nil {
				rt.Fatalf("replay of entry %d: %v", i, err)
			}
		}
		if diff := cmp.Diff(text(live), text(again)); diff != "" {
			rt.Fatalf("tables differ after a replay:\n%s", diff)
		}
		held := false
		for key, row := range text(again) {
			held = held || len(key) > 5 && key[:5] == "role/" && (row == `{"roles":["admin"]}` || len(row) > 18 && row[:18] == `{"roles":["admin",`)
		}
		if !held {
			rt.Fatalf("nobody is admin any more: %v", text(again))
		}
	})
}

// What a refusal wrote is undone by the real store, too.
func TestRefusalLeavesNoTrace(t *testing.T) {
	log := audittest.New(t, genesisLeaf(t), registry.Admission{})
	dump := func() map[string]string {
		rows := map[string]string{}
		err := log.Store.View(func(tx audit.Tx) error {
			return tx.Each("", func(key string, value []byte) error { rows[key] = string(value); return nil })
		})
		if err != nil {
			t.Fatal(err)
		}
		return rows
	}
	rec := log.Recorder(keeper)
	if _, err := rec.Record(t.Context(), entryNow(t, admin(), registry.KeyBody{Action: registry.Revoke, ID: opsKey, Tenant: "acme"})); err != nil {
		t.Fatal(err)
	}
	before := dump()
	_, err := rec.Record(t.Context(), entryNow(t, admin(), registry.AgentBody{Action: registry.Revoke, ID: alice.ID(), Tenant: "acme"}))
	if refusal, ok := errors.AsType[*audit.Refusal](err); !ok || refusal.Code != "last_admin" {
		t.Fatalf("Record = %v, want the refusal last_admin", err)
	}
	if diff := cmp.Diff(before, dump()); diff != "" {
		t.Errorf("the refusal changed the tables:\n%s", diff)
	}
}

// FuzzAdmit feeds bodies that a keeper's peer could send: they are admitted or
// refused, never an error that stops the keeper, and never a panic.
func FuzzAdmit(f *testing.F) {
	f.Add(uint8(0), `{"action":"add","id":"12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN","name":"x","tenant":"acme"}`, "acme")
	f.Add(uint8(1), `{"action":"create","id":"k","name":"k","hash":"00","tenant":"acme","expires":"x"}`, "acme")
	f.Add(uint8(2), `{"action":"grant","principal":"agent:did:key:z","role":"admin","tenant":"acme"}`, "acme")
	f.Add(uint8(3), `{"action":"set","name":"acme"}`, "acme")
	f.Add(uint8(4), `{"action":"remove","id":""}`, "")
	f.Add(uint8(5), `null`, "")
	kinds := []audit.Kind{audit.KindAgent, audit.KindKey, audit.KindRole, audit.KindTenant, audit.KindMember, audit.KindIntent, audit.KindPolicy}
	first := genesisTables(f)
	f.Fuzz(func(t *testing.T, kind uint8, body, tenant string) {
		tables := maps.Clone(first)
		e := audit.Entry{Kind: kinds[int(kind)%len(kinds)], Actor: admin(), Tenant: tenant, Body: []byte(body)}
		if err := admit(tables, 1, keeper.ID(), e); err != nil && code(err) == "" {
			t.Errorf("%s %q: %v stops the keeper", e.Kind, body, err)
		}
	})
}

func BenchmarkAdmitIntent(b *testing.B) {
	tables, e := genesisTables(b), intent(b)
	b.ReportAllocs()
	for b.Loop() {
		if err := admit(tables, 1, keeper.ID(), e); err != nil {
			b.Fatal(err)
		}
	}
}

func ExampleNewEntry() {
	e, err := registry.NewEntry("service:k3xk3xk3xk", registry.TenantBody{Action: registry.Create, Name: "acme"})
	fmt.Println(e.Kind, e.Tenant, string(e.Body), err)
	// Output: tenant acme {"action":"create","name":"acme"} <nil>
}

func text(tables registry.Memory) map[string]string {
	rows := map[string]string{}
	for key, value := range tables {
		rows[key] = string(value)
	}
	return rows
}

// entryNow is signed at the time that the recorder gives it.
func entryNow[B registry.AgentBody | registry.KeyBody](t *testing.T, actor string, b B) audit.Entry {
	t.Helper()
	e, err := registry.NewEntry(actor, b)
	if err != nil {
		t.Fatal(err)
	}
	return signed(e, time.Now())
}
