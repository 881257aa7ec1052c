package registry_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/audit/audittest"
	"github.com/agenticraft/node/registry"
)

// Who could do what on that day: the tables as of every index are those that
// stood there then.
func TestAsOf(t *testing.T) {
	leaf := genesisLeaf(t)
	log := audittest.New(t, leaf, registry.Admission{Origin: audit.OriginOf(leaf)})
	reg := registry.New(log.Store)
	rec := log.Recorder(keeper)
	then := map[uint64][]registry.Agent{}
	keep := func(index uint64) {
		t.Helper()
		agents, err := reg.Agents()
		if err != nil {
			t.Fatal(err)
		}
		then[index] = agents
	}
	keep(0)
	for _, body := range []registry.AgentBody{
		{Action: registry.Add, ID: carol.ID(), Name: "carol", Tenant: "acme", Roles: []string{"runner"}},
		{Action: registry.Revoke, ID: carol.ID(), Tenant: "acme"},
	} {
		e, err := registry.NewEntry(admin(), body)
		if err != nil {
			t.Fatal(err)
		}
		ack, err := rec.Record(t.Context(), signed(e, time.Now()))
		if err != nil {
			t.Fatal(err)
		}
		keep(ack.Index)
	}
	// A node that comes by an invitation: its proof holds for this log only.
	invite, origin := person(40), log.Store.Origin()
	ends := audit.FormatTime(time.Now().Add(time.Hour))
	for _, body := range []registry.MemberBody{
		{Action: registry.Invite, ID: invite.ID(), Role: registry.Worker, Expires: ends},
		{Action: registry.Add, ID: carol.ID(), Role: registry.Worker, Invite: invite.ID(), Proof: registry.JoinProof(invite, origin, carol.ID(), registry.Worker)},
	} {
		e, err := registry.NewEntry(admin(), body)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := rec.Record(t.Context(), signed(e, time.Now())); err != nil {
			t.Fatal(err)
		}
	}
	joined, err := registry.AsOf(t.Context(), log.Store, log.Store.Size()-1)
	if err != nil || len(joined.Members) != 4 || joined.Epoch.Number != 1 || len(joined.Epoch.Keepers) != 1 {
		t.Errorf("after a node joined: %+v, %v", joined, err)
	}
	for index, want := range then {
		got, err := registry.AsOf(t.Context(), log.Store, index)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got.Agents); diff != "" || got.At != index || len(got.Members) != 3 || got.Policy != nil {
			t.Errorf("as of %d: %+v\n%s", index, got, diff)
		}
	}
}
