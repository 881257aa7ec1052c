package registry_test

import (
	"slices"
	"testing"
	"time"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/registry"
)

const origin = "agenticraft/0000000000000000000000000000000000000000000000000000000000000001"

func admitFor(tables registry.Memory, origin string, index uint64, author identity.ID, e audit.Entry) error {
	e.V, e.Author, e.ID = audit.EntryVersion, author, "e"
	if e.Time == "" {
		e.Time = audit.FormatTime(start)
	}
	return registry.Admission{Origin: origin}.Admit(tables, index, author, e)
}

// An invitation lets in one node, of one role, into one cluster, once, before
// its end.
func TestInvitation(t *testing.T) {
	invited, other := person(40), person(41)
	invite := func(b registry.MemberBody) audit.Entry { return entry(t, admin(), b) }
	open := registry.MemberBody{Action: registry.Invite, ID: invited.ID(), Role: registry.Worker, Expires: audit.FormatTime(start.Add(time.Hour))}
	join := registry.MemberBody{
		Action: registry.Add, ID: carol.ID(), Role: registry.Worker, Invite: invited.ID(),
		Proof: registry.JoinProof(invited, origin, carol.ID(), registry.Worker),
	}
	with := func(change func(b *registry.MemberBody)) registry.MemberBody {
		b := join
		change(&b)
		return b
	}
	later := func(e audit.Entry, d time.Duration) audit.Entry { e.Time = audit.FormatTime(start.Add(d)); return e }
	byNode := "node:" + keeper.ID().DID()
	for _, c := range []struct {
		name   string
		origin string
		before []audit.Entry
		entry  audit.Entry
		want   string
	}{
		{name: "used", before: []audit.Entry{invite(open)}, entry: entry(t, byNode, join)},
		{name: "just before its end", before: []audit.Entry{invite(open)}, entry: later(entry(t, byNode, join), time.Hour-time.Millisecond)},
		{name: "at its end", before: []audit.Entry{invite(open)}, entry: later(entry(t, byNode, join), time.Hour), want: "invite_expired"},
		{name: "twice", before: []audit.Entry{invite(open), entry(t, byNode, join)}, entry: entry(t, byNode, with(func(b *registry.MemberBody) {
			b.ID, b.Proof = other.ID(), registry.JoinProof(invited, origin, other.ID(), registry.Worker)
		})), want: "invite_used"},
		{name: "never given", entry: entry(t, byNode, join), want: "invite_unknown"},
		{name: "for another node", before: []audit.Entry{invite(open)}, entry: entry(t, byNode, with(func(b *registry.MemberBody) { b.ID = other.ID() })), want: "invite_proof"},
		{name: "by another key", before: []audit.Entry{invite(open)}, entry: entry(t, byNode, with(func(b *registry.MemberBody) { b.Proof = registry.JoinProof(other, origin, carol.ID(), registry.Worker) })), want: "invite_proof"},
		{name: "in another cluster", origin: "agenticraft/" + hash(9), before: []audit.Entry{invite(open)}, entry: entry(t, byNode, join), want: "invite_proof"},
		{name: "for a worker used as a keeper", before: []audit.Entry{invite(open)}, entry: entry(t, byNode, with(func(b *registry.MemberBody) {
			b.Role, b.Proof = registry.Keeper, registry.JoinProof(invited, origin, carol.ID(), registry.Keeper)
		})), want: "invite_role"},
		{name: "given by a runner", entry: entry(t, "agent:"+bob.ID().DID(), open), want: "role"},
		{name: "given by a node", entry: entry(t, byNode, open), want: "role"},
		{name: "given when it has ended", entry: later(invite(open), time.Hour), want: "expired"},
		{name: "given twice", before: []audit.Entry{invite(open)}, entry: invite(open), want: "exists"},
	} {
		t.Run(c.name, func(t *testing.T) {
			at := origin
			if c.origin != "" {
				at = c.origin
			}
			tables := genesisTables(t)
			for i, e := range c.before {
				if err := admitFor(tables, at, uint64(1+i), keeper.ID(), e); err != nil {
					t.Fatalf("before: %v", err)
				}
			}
			if got := code(admitFor(tables, at, 10, keeper.ID(), c.entry)); got != c.want {
				t.Errorf("refused with %q, want %q", got, c.want)
			}
		})
	}
}

// Keepers change by an epoch that a quorum of those before signed, one at a
// time, and only as the members say.
func TestEpochs(t *testing.T) {
	k := []*identity.Key{person(50), person(51), person(52)}
	d, stranger := person(53), person(54)
	g := genesis()
	g.Members = nil
	for _, key := range k {
		g.Members = append(g.Members, registry.MemberBody{ID: key.ID(), Role: registry.Keeper})
	}
	ids := func(keys ...*identity.Key) []identity.ID {
		var out []identity.ID
		for _, key := range keys {
			out = append(out, key.ID())
		}
		slices.Sort(out)
		return out
	}
	epoch := func(n uint64, next []identity.ID, signers ...*identity.Key) audit.Entry {
		b := audit.EpochBody{Epoch: n, Keepers: next}
		for _, s := range signers {
			b.Signatures = append(b.Signatures, audit.SignEpoch(s, origin, n, next))
		}
		slices.SortFunc(b.Signatures, func(x, y audit.EpochSignature) int {
			if x.By < y.By {
				return -1
			}
			return 1
		})
		text, err := audit.MarshalBody(b)
		if err != nil {
			t.Fatal(err)
		}
		return audit.Entry{Kind: audit.KindEpoch, Actor: "node:" + k[0].ID().DID(), Body: text}
	}
	comes := entry(t, admin(), registry.MemberBody{Action: registry.Add, ID: d.ID(), Role: registry.Keeper})
	goes := entry(t, admin(), registry.MemberBody{Action: registry.Remove, ID: k[2].ID()})
	four := ids(k[0], k[1], k[2], d)
	for _, c := range []struct {
		name   string
		author *identity.Key
		before []audit.Entry
		entry  audit.Entry
		want   string
	}{
		{name: "one comes", before: []audit.Entry{comes}, entry: epoch(2, four, k[0], k[1])},
		{name: "all three signed", before: []audit.Entry{comes}, entry: epoch(2, four, k...)},
		{name: "no quorum", before: []audit.Entry{comes}, entry: epoch(2, four, k[0]), want: "epoch_signatures"},
		{name: "one signs twice", before: []audit.Entry{comes}, entry: epoch(2, four, k[0], k[0]), want: "epoch_signatures"},
		{name: "signed by the one who comes", before: []audit.Entry{comes}, entry: epoch(2, four, k[0], d), want: "epoch_signatures"},
		{name: "signed by a stranger", before: []audit.Entry{comes}, entry: epoch(2, four, k[0], k[1], stranger), want: "epoch_signatures"},
		{name: "one who was not let in", entry: epoch(2, four, k[0], k[1]), want: "keepers"},
		{name: "an epoch is left out", before: []audit.Entry{comes}, entry: epoch(3, four, k[0], k[1]), want: "epoch"},
		{name: "the same epoch again", before: []audit.Entry{comes, epoch(2, four, k[0], k[1])}, entry: epoch(2, four, k[0], k[1]), want: "epoch"},
		{name: "nothing changes", entry: epoch(2, ids(k...), k[0], k[1]), want: "keepers"},
		{name: "two changes", before: []audit.Entry{comes, goes}, entry: epoch(2, ids(k[0], k[1], d), k[0], k[1]), want: "keepers"},
		{name: "one goes", before: []audit.Entry{goes}, entry: epoch(2, ids(k[0], k[1]), k[0], k[1])},
		{name: "one goes whom nobody told to", entry: epoch(2, ids(k[0], k[1]), k[0], k[1]), want: "keepers"},
		{name: "written by one who does not vote", author: d, before: []audit.Entry{comes}, entry: epoch(2, four, k[0], k[1]), want: "author"},
		{name: "quorum of four", before: []audit.Entry{comes, epoch(2, four, k[0], k[1]), goes}, entry: epoch(3, ids(k[0], k[1], d), k[0], d), want: "epoch_signatures"},
		{name: "replaced", before: []audit.Entry{comes, epoch(2, four, k[0], k[1]), goes}, entry: epoch(3, ids(k[0], k[1], d), k[0], k[1], d)},
		{name: "told to go twice", before: []audit.Entry{goes}, entry: goes, want: "leaving"},
		{name: "gone, then removed", before: []audit.Entry{goes, epoch(2, ids(k[0], k[1]), k[0], k[1])}, entry: goes},
		{name: "gone, then let go by another keeper", before: []audit.Entry{goes, epoch(2, ids(k[0], k[1]), k[0], k[1])}, entry: func() audit.Entry { e := goes; e.Actor = "node:" + k[0].ID().DID(); return e }()},
		{name: "let go while it votes", before: []audit.Entry{goes}, entry: func() audit.Entry { e := goes; e.Actor = "node:" + k[0].ID().DID(); return e }(), want: "principal"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tables := tablesOf(t, g)
			for i, e := range c.before {
				if err := admitFor(tables, origin, uint64(1+i), k[0].ID(), e); err != nil {
					t.Fatalf("before: %v", err)
				}
			}
			author := c.author
			if author == nil {
				author = k[0]
			}
			if got := code(admitFor(tables, origin, 10, author.ID(), c.entry)); got != c.want {
				t.Errorf("refused with %q, want %q", got, c.want)
			}
		})
	}
}
