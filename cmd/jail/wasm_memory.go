//go:build linux

package main

import (
	"github.com/tetratelabs/wazero/experimental"
	"golang.org/x/sys/unix"
)

// memory gives a module its linear memory: address space at once, pages as it
// grows, and all back to the system at its end. It notes when a module asked
// for more than there is, which the module sees as memory.grow failing.
type memory struct {
	most   uint64 // bytes
	denied bool
}

// Allocate implements [experimental.MemoryAllocator].
func (m *memory) Allocate(_, ceiling uint64) experimental.LinearMemory {
	return &linear{memory: m, reserve: min(ceiling, m.most)}
}

type linear struct {
	memory  *memory
	reserve uint64
	whole   []byte
	usable  uint64
}

// Reallocate implements [experimental.LinearMemory].
func (l *linear) Reallocate(size uint64) []byte {
	if size > l.reserve {
		l.memory.denied = true
		return nil
	}
	if l.whole == nil {
		if l.reserve == 0 {
			return []byte{}
		}
		whole, err := unix.Mmap(-1, 0, int(l.reserve), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
		if err != nil {
			l.memory.denied = true
			return nil
		}
		l.whole = whole
	}
	if size > l.usable {
		if err := unix.Mprotect(l.whole[l.usable:size], unix.PROT_READ|unix.PROT_WRITE); err != nil {
			l.memory.denied = true
			return nil
		}
		l.usable = size
	}
	return l.whole[:size:size]
}

// Free implements [experimental.LinearMemory].
func (l *linear) Free() {
	if l.whole != nil {
		_ = unix.Munmap(l.whole) // our own mapping: never fails
		l.whole = nil
	}
}
