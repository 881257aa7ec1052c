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
	p, err := seccompProfile()
	if err != nil {
		t.Fatal(err)
	}
	info, err := arch.GetInfo("")
	if err != nil {
		t.Fatal(err)
	}
	pass, absent := seccomp.Rules()
	answer := func(name string, arg uint64) string {
		for _, s := range p.Syscalls {
			if !slices.Contains(s.Names, name) {
				continue
			}
			if s.Action == errno {
				return "ENOSYS"
			}
			if len(s.Args) == 0 || arg&s.Args[0].Value == s.Args[0].ValueTwo {
				return "allow"
			}
		}
		return "EPERM"
	}
	for nr, name := range info.SyscallNumbers {
		for _, arg := range []uint64{0, 1, 2, 0o10000, 0o20000, 0x10000000, 0x5401, 0x5412, 15, 38} {
			want := "EPERM"
			if slices.Contains(absent, uint32(nr)) {
				want = "ENOSYS"
			}
			for _, r := range pass {
				if r.Call == uint32(nr) && arg&uint64(r.Mask) == uint64(r.Value) {
					want = "allow"
				}
			}
			if got := answer(name, arg); got != want {
				t.Errorf("%s with %#x: the profile answers %s, the table %s", name, arg, got, want)
			}
		}
	}
	if answer("ptrace", 0) != "EPERM" || answer("read", 0) != "allow" || answer("clone3", 0) != "ENOSYS" {
		t.Error("the profile is not the jail's")
	}
}
