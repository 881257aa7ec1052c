package main

import (
	"context"
	"sync"
	"time"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/registry"
)

// keyUse remembers when this node saw which API key, and tells the cluster of it
// now and then: an entry for every use would be as dear as the use itself.
type keyUse struct {
	mu   sync.Mutex
	seen map[string]time.Time
	told map[string]time.Time
}

const (
	keyUseEvery = time.Hour   // the cluster hears of a key at most this often from each node
	keyUseTick  = time.Minute // and at least this long after it was seen
	keyUseWait  = 5 * time.Second
	maxKeyUse   = 100_000 // keys
)

func newKeyUse() *keyUse {
	return &keyUse{seen: map[string]time.Time{}, told: map[string]time.Time{}}
}

func (u *keyUse) note(id string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, known := u.seen[id]; known || len(u.seen) < maxKeyUse {
		u.seen[id] = time.Now()
	}
}

// at is when this node saw the key since its start, as entries write times.
func (u *keyUse) at(id string) string {
	u.mu.Lock()
	defer u.mu.Unlock()
	if t, ok := u.seen[id]; ok {
		return audit.FormatTime(t)
	}
	return ""
}

// due are the keys of which the cluster has not heard for a while.
func (u *keyUse) due(now time.Time) []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	var ids []string
	for id, seen := range u.seen {
		if told, ok := u.told[id]; !ok || seen.After(told) && now.Sub(told) >= keyUseEvery {
			u.told[id] = now
			ids = append(ids, id)
		}
	}
	return ids
}

// run tells of the keys until ctx is done. What is lost with a node is at most
// an hour of one key's story.
func (u *keyUse) run(ctx context.Context, self identity.ID, m *admin) error {
	tick := time.NewTicker(keyUseTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			for _, id := range u.due(now) {
				u.tell(ctx, self, m, id)
			}
		}
	}
}

func (u *keyUse) tell(ctx context.Context, self identity.ID, m *admin, id string) {
	// A cluster that has heard of it lately, from another node, need not hear again.
	if k, err := m.registry.KeyByID(id); err == nil {
		if at, err := audit.ParseTime(k.Used); err == nil && time.Since(at) < keyUseEvery {
			return
		}
	}
	entry, err := registry.NewEntry("node:"+self.DID(), registry.KeyBody{Action: registry.Used, ID: id})
	if err != nil {
		return // not a key's id: such keys do not exist
	}
	ctx, cancel := context.WithTimeout(ctx, keyUseWait)
	defer cancel()
	_, _ = m.recorder.Record(ctx, entry) // it is told again an hour later
}
