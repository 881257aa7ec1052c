//go:build linux

package docker

import (
	"encoding/json"
	"fmt"
	"runtime"
	"strings"

	"github.com/elastic/go-seccomp-bpf/arch"

	"github.com/agenticraft/node/sandbox/jail/seccomp"
)

// The engine's form of a filter.
type (
	profile struct {
		DefaultAction   string    `json:"defaultAction"`
		DefaultErrnoRet uint      `json:"defaultErrnoRet"`
		Architectures   []string  `json:"architectures"`
		Syscalls        []syscall `json:"syscalls"`
	}
	syscall struct {
		Names    []string   `json:"names"`
		Action   string     `json:"action"`
		ErrnoRet *uint      `json:"errnoRet,omitempty"`
		Args     []argument `json:"args,omitempty"`
	}
	argument struct {
		Index    uint32 `json:"index"`
		Value    uint64 `json:"value"`
		ValueTwo uint64 `json:"valueTwo"`
		Op       string `json:"op"`
	}
)

const (
	allow = "SCMP_ACT_ALLOW"
	errno = "SCMP_ACT_ERRNO"

	errnoEPERM  = 1
	errnoENOSYS = 38
)

var architectures = map[string]string{"amd64": "SCMP_ARCH_X86_64", "arm64": "SCMP_ARCH_AARCH64"}

// seccompProfile renders the jail's table of system calls for the engine,
// whose own default profile lets pass what the jail refuses.
func seccompProfile(networked bool) (profile, error) {
	info, err := arch.GetInfo("")
	if err != nil {
		return profile{}, fmt.Errorf("find names of system calls: %w", err)
	}
	name := architectures[runtime.GOARCH]
	if name == "" {
		return profile{}, fmt.Errorf("no system call table for %s", runtime.GOARCH)
	}
	called := func(nr uint32) (string, error) {
		n, ok := info.SyscallNumbers[int(nr)]
		if !ok {
			return "", fmt.Errorf("system call %d has no name", nr)
		}
		return n, nil
	}
	p := profile{DefaultAction: errno, DefaultErrnoRet: errnoEPERM, Architectures: []string{name}}
	plain := syscall{Action: allow}
	noSys := uint(errnoENOSYS)
	lacking := syscall{Action: errno, ErrnoRet: &noSys}
	pass, absent := seccomp.Rules(networked)
	for _, r := range pass {
		n, err := called(r.Call)
		if err != nil {
			return profile{}, err
		}
		if len(r.When) == 0 {
			plain.Names = append(plain.Names, n)
			continue
		}
		s := syscall{Names: []string{n}, Action: allow}
		for _, c := range r.When {
			s.Args = append(s.Args, argument{Index: c.Arg, Value: uint64(c.Mask), ValueTwo: uint64(c.Value), Op: "SCMP_CMP_MASKED_EQ"})
		}
		p.Syscalls = append(p.Syscalls, s)
	}
	for _, nr := range absent {
		n, err := called(nr)
		if err != nil {
			return profile{}, err
		}
		lacking.Names = append(lacking.Names, n)
	}
	p.Syscalls = append(p.Syscalls, plain, lacking)
	return p, nil
}

func encodedProfile(networked bool) (string, error) {
	p, err := seccompProfile(networked)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	err = json.NewEncoder(&b).Encode(p)
	return b.String(), err
}
