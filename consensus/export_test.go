package consensus

import "testing"

// FirstIndex is the first entry of the raft log.
func (g *Group) FirstIndex() (uint64, error) { return g.store.FirstIndex() }

// HoldDisk lets no write to the raft log finish until release is called.
func (g *Group) HoldDisk(t testing.TB) (release func()) {
	t.Helper()
	g.store.disk.Lock()
	return g.store.disk.Unlock
}

// LastIndex is the last entry of the raft log, on the disk or not.
func (g *Group) LastIndex() (uint64, error) { return g.store.LastIndex() }

// LoseDisk has the disk refuse what it has not written.
func (g *Group) LoseDisk(why error) {
	g.store.mu.Lock()
	g.store.unwritten.lost = why
	close(g.store.unwritten.changed)
	g.store.unwritten.changed = make(chan struct{})
	g.store.mu.Unlock()
}

// Corrupt spoils one entry of the raft log where it lies.
func (g *Group) Corrupt(t testing.TB, index uint64) {
	t.Helper()
	for _, seg := range g.store.log.files {
		if index < seg.first || index > seg.last() {
			continue
		}
		at := seg.offsets[index-seg.first] + recordHeader + entryHead
		var b [1]byte
		if _, err := seg.file.ReadAt(b[:], at); err != nil {
			t.Fatal(err)
		}
		if _, err := seg.file.WriteAt([]byte{b[0] ^ 1}, at); err != nil {
			t.Fatal(err)
		}
	}
}

// ProposeRaw puts bytes into the raft log as they are.
func (g *Group) ProposeRaw(entry []byte) error { return g.raft.Apply(entry, 0).Error() }
