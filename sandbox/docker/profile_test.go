//go:build linux

package docker

import (
	"slices"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"

	"github.com/agenticraft/node/sandbox/jail/seccomp"
)

// Package seccomp's own test holds the rules against the jail's filter; this
// one holds the engine's form against the rules.
func TestEngineProfileAgreesWithTheTable(t *testing.T) {
	for _, networked := range []bool{false, true} {
		profileAgrees(t, networked)
	}
}

func profileAgrees(t *testing.T, networked bool) {
	t.Helper()
	p, err := seccompProfile(networked)
	if err != nil {
		t.Fatal(err)
	}
	info, err := arch.GetInfo("")
	if err != nil {
		t.Fatal(err)
	}
	pass, absent := seccomp.Rules(networked)
	answer := func(name string, args [3]uint64) string {
		for _, s := range p.Syscalls {
			if !slices.Contains(s.Names, name) {
				continue
			}
			if s.Action == errno {
				return "ENOSYS"
			}
			if !slices.ContainsFunc(s.Args, func(a argument) bool { return args[a.Index]&a.Value != a.ValueTwo }) {
				return "allow"
			}
		}
		return "EPERM"
	}
	for nr, name := range info.SyscallNumbers {
		for _, args := range [][3]uint64{
			{},
			{1, 1, 1},
			{2, 2, 2},
			{0o10000, 0o10000, 0o10000},
			{0o20000, 0o20000, 0o20000},
			{0x10000000},
			{0, 0x5401},
			{0, 0x5412},
			{15},
			{38},
			{2, 1, 0},
			{2, 0x80801, 6},
			{2, 2, 0},
			{2, 1, 1},
			{2, 3, 6},
			{10, 1, 0},
			{1, 1, 0},
			{17, 3, 0},
			{40, 1, 0},
		} {
			want := "EPERM"
			if slices.Contains(absent, uint32(nr)) {
				want = "ENOSYS"
			}
			for _, r := range pass {
				if r.Call == uint32(nr) && !slices.ContainsFunc(r.When, func(c seccomp.Condition) bool { return args[c.Arg]&uint64(c.Mask) != uint64(c.Value) }) {
					want = "allow"
				}
			}
			if got := answer(name, args); got != want {
				t.Errorf("%s with %#x: the profile answers %s, the table %s", name, args, got, want)
			}
		}
	}
	if answer("ptrace", [3]uint64{}) != "EPERM" || answer("read", [3]uint64{}) != "allow" || answer("clone3", [3]uint64{}) != "ENOSYS" {
		t.Error("the profile is not the jail's")
	}
	tcp, want := answer("socket", [3]uint64{2, 1, 6}), map[bool]string{false: "EPERM", true: "allow"}[networked]
	if tcp != want {
		t.Errorf("a TCP socket is answered %s, want %s", tcp, want)
	}
}
