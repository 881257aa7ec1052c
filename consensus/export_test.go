package consensus

// FirstIndex is the first entry of the raft log.
func (g *Group) FirstIndex() (uint64, error) { return g.store.FirstIndex() }
