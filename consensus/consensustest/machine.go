package consensustest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// Machine is a state machine that keeps the commands it applied, each once. It
// outlives the group that drives it, as a durable store would. A command that
// begins with "fail" breaks it.
type Machine struct {
	// Peers are where Restore fetches from. Set it before use.
	Peers []*Machine

	mu       sync.Mutex
	index    uint64
	term     uint64
	commands []string
	at       map[string]int
	applies  int
	restores int
	full     error         // why Apply waits
	goOn     chan struct{} // closed when it waits no more
	released bool
}

// Stall makes Apply wait, as a full disk would, until Resume.
func (m *Machine) Stall(why error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.full, m.goOn = why, make(chan struct{})
}

// Resume lets Apply go on.
func (m *Machine) Resume() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.full != nil {
		m.full = nil
		close(m.goOn)
	}
}

// Stalled says why Apply waits.
func (m *Machine) Stalled() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.full
}

// Broken says nothing: what breaks this machine is a command.
func (m *Machine) Broken() error { return nil }

// Release makes an Apply that waits fail.
func (m *Machine) Release() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.full != nil && !m.released {
		m.released = true
		close(m.goOn)
		m.full = nil
	}
}

// wait waits while the machine stalls.
func (m *Machine) wait() error {
	m.mu.Lock()
	full, goOn := m.full, m.goOn
	m.mu.Unlock()
	if full != nil {
		<-goOn
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.released {
		m.released = false // the machine outlives the group
		return errors.New("released")
	}
	return nil
}

// NewMachine returns an empty machine.
func NewMachine() *Machine { return &Machine{at: map[string]int{}} }

// Check refuses commands that begin with "refuse".
func (m *Machine) Check(cmd []byte) error {
	if bytes.HasPrefix(cmd, []byte("refuse")) {
		return errors.New("the machine does not know this command")
	}
	return nil
}

// Apply answers each command with its position; a repeated command with the
// position of its first time.
func (m *Machine) Apply(index, term uint64, cmds [][]byte) ([][]byte, error) {
	if err := m.wait(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if index <= m.index {
		return nil, fmt.Errorf("entry %d comes after %d", index, m.index)
	}
	var out [][]byte
	for _, cmd := range cmds {
		if len(cmd) >= 4 && string(cmd[:4]) == "fail" {
			return nil, errors.New("the machine broke")
		}
		position, known := m.at[string(cmd)]
		if !known {
			position = len(m.commands)
			m.at[string(cmd)] = position
			m.commands = append(m.commands, string(cmd))
		}
		out = append(out, fmt.Append(nil, position))
	}
	m.index, m.term = index, term
	m.applies++
	return out, nil
}

// Applied is the index and term of the last entry.
func (m *Machine) Applied() (index, term uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.index, m.term
}

// Snapshot says how many commands there are.
func (m *Machine) Snapshot() ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return json.Marshal(len(m.commands))
}

// Restore copies the missing commands from the first peer that has them.
func (m *Machine) Restore(_ context.Context, index, term uint64, meta []byte) error {
	var want int
	if err := json.Unmarshal(meta, &want); err != nil {
		return fmt.Errorf("read description: %w", err)
	}
	for _, p := range m.Peers {
		if p == m {
			continue
		}
		have := p.Commands()
		if len(have) < want {
			continue
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		for i := len(m.commands); i < want; i++ {
			m.at[have[i]] = i
			m.commands = append(m.commands, have[i])
		}
		m.index, m.term = index, term
		m.restores++
		return nil
	}
	return errors.New("no peer has what is missing")
}

// Commands are the distinct commands in order.
func (m *Machine) Commands() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.commands)
}

// Restores is how often Restore succeeded.
func (m *Machine) Restores() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.restores
}

// Applies is how often Apply was called.
func (m *Machine) Applies() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.applies
}
