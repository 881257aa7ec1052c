package agent

import (
	"testing"

	"github.com/agenticraft/node/identity"
)

// What a peer says of itself is read, or refused; it never hurts.
func FuzzParseAdvert(f *testing.F) {
	f.Add([]byte(`{"v":1,"run":true,"backends":{"process":["python"]},"slots":4,"busy":1,"queued":0}`))
	f.Add([]byte(`{"v":1,"slots":-9223372036854775808,"busy":9223372036854775807}`))
	f.Add([]byte(`{"v":2}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, text []byte) {
		ad, err := ParseAdvert(text)
		if err != nil && (ad.Run || ad.Backends != nil) {
			t.Errorf("ParseAdvert(%q) = %+v, %v", text, ad, err)
		}
		_ = ad.load()
		_ = ad.Offers("auto", "python", "", "T2")
	})
}

type everyone struct{ Directory }

func (everyone) Member(identity.ID) bool { return true }

// Only what the peer signed, for this task and this node, opens.
func FuzzOpenDelegation(f *testing.F) {
	door, err := identity.FromSeed(make([]byte, 32))
	if err != nil {
		f.Fatal(err)
	}
	seed := make([]byte, 32)
	seed[0] = 1
	here, err := identity.FromSeed(seed)
	if err != nil {
		f.Fatal(err)
	}
	const task = "00112233445566778899aabbccddeeff"
	from := New(Config{Key: door})
	good, err := from.sealDelegation(&request{task: task}, here.ID())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"payload":"","signature":""}`))
	to := New(Config{Key: here, Directory: everyone{}})
	f.Fuzz(func(t *testing.T, text []byte) {
		// The good one denies (its decision is the zero value), so nothing opens.
		if d, err := to.openDelegation(text, door.ID(), task); err == nil {
			t.Errorf("openDelegation(%q) = %+v", text, d)
		}
	})
}
