//go:build linux

package spawn

import "testing"

func TestMappedIDs(t *testing.T) {
	for in, want := range map[string]bool{
		"         0          0 4294967295\n": true,
		"0 100000 65536\n":                   false,
		"0 1000 1\n1 100000 65536\n":         false,
		"":                                   false,
		"nonsense\n":                         false,
	} {
		if got := mapped(in); got != want {
			t.Errorf("mapped(%q) = %v, want %v", in, got, want)
		}
	}
}

func TestSlotsThatCannotBeEmptiedAreNotUsedAgain(t *testing.T) {
	s := newSlots(2, &idBlock{first: 1000})
	a, _ := s.take()
	b, _ := s.take()
	if _, ok := s.take(); ok || a == b {
		t.Errorf("took %d and %d and a third", a, b)
	}
	s.give(a, false)
	s.give(b, true)
	if got, ok := s.take(); !ok || got != b {
		t.Errorf("take = %d, %v, want %d", got, ok, b)
	}
	if _, ok := s.take(); ok {
		t.Error("took a slot in which something lives")
	}
	i, w := s.hostIDs(b)
	if i == w || i < 1000 || w < 1000 {
		t.Errorf("ids %d and %d", i, w)
	}
}

func TestTwoSpawnersTakeDifferentIDs(t *testing.T) {
	a, err := claimIDs("same")
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll([]int{a.lock})
	b, err := claimIDs("same")
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll([]int{b.lock})
	if a.first == b.first {
		t.Errorf("both take %d", a.first)
	}
}
