// Package recent remembers what was computed lately, in bounded memory.
package recent

import "sync"

// Map keeps the values that were put or used last: at least Half of them, at
// most twice as many. When the younger half is full it becomes the older one,
// and what was not used since is forgotten. Its methods may be called
// concurrently, and of a nil Map: that remembers nothing.
type Map[K comparable, V any] struct {
	Half int // above zero; not to be changed once in use

	mu       sync.Mutex
	new, old map[K]V
}

// Get returns what was put last under the key, if it is still remembered.
func (m *Map[K, V]) Get(key K) (value V, ok bool) {
	if m == nil {
		return value, false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if value, ok = m.new[key]; ok {
		return value, true
	}
	if value, ok = m.old[key]; ok {
		m.put(key, value)
	}
	return value, ok
}

// Put remembers a value.
func (m *Map[K, V]) Put(key K, value V) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.put(key, value)
}

func (m *Map[K, V]) put(key K, value V) {
	if m.new == nil || len(m.new) >= m.Half {
		m.new, m.old = make(map[K]V), m.new
	}
	m.new[key] = value
}

// Len is how many are remembered; those used twice may count twice.
func (m *Map[K, V]) Len() int {
	if m == nil {
		return 0
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.new) + len(m.old)
}
