package recent_test

import (
	"testing"

	"github.com/agenticraft/node/internal/recent"
)

func TestMapForgetsWhatIsNotUsed(t *testing.T) {
	m := recent.Map[int, string]{Half: 4}
	m.Put(-1, "used")
	m.Put(-2, "unused")
	for i := range 100 {
		m.Put(i, "new")
		if v, ok := m.Get(-1); !ok || v != "used" {
			t.Fatalf("after %d: %q, %v", i, v, ok)
		}
		if n := m.Len(); n > 8 {
			t.Fatalf("%d are remembered", n)
		}
	}
	if _, ok := m.Get(-2); ok {
		t.Error("what nobody used is remembered")
	}
	m.Put(99, "newer")
	if v, ok := m.Get(99); !ok || v != "newer" {
		t.Errorf("Get = %q, %v", v, ok)
	}
}

func TestNilMapRemembersNothing(t *testing.T) {
	var m *recent.Map[int, int]
	m.Put(1, 1)
	if _, ok := m.Get(1); ok || m.Len() != 0 {
		t.Error("a nil map remembers")
	}
}
