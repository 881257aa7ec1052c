package audit

import "testing"

// No bit of what a store says raft had applied can turn unnoticed; one from
// before the checksum is still read.
func TestAppliedIsChecked(t *testing.T) {
	want := applied{index: 18, term: 1, size: 25}
	raw := want.encode()
	for _, good := range [][]byte{raw, raw[:appliedBytes]} {
		if got, err := decodeApplied(good); err != nil || got != want {
			t.Errorf("decodeApplied(%x) = %+v, %v", good, got, err)
		}
	}
	for bit := range len(raw) * 8 {
		raw[bit/8] ^= 1 << (bit % 8)
		if got, err := decodeApplied(raw); err == nil {
			t.Errorf("bit %d turned: %+v", bit, got)
		}
		raw[bit/8] ^= 1 << (bit % 8)
	}
	for n := range len(raw) {
		if _, err := decodeApplied(raw[:n]); (err == nil) != (n == appliedBytes) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}
