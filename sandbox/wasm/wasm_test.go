package wasm_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/jail/jailtest"
	"github.com/agenticraft/node/sandbox/runtime"
	"github.com/agenticraft/node/sandbox/sandboxtest"
	"github.com/agenticraft/node/sandbox/wasm"
)

func open(t testing.TB, cfg wasm.Config) *wasm.Backend {
	t.Helper()
	cfg.Spawner = jailtest.Start(t)
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	b, err := wasm.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	if d := b.Describe(); !d.Available {
		t.Fatalf("unavailable: %s", d.Reason)
	}
	return b
}

func spec(owner string, m []byte) sandbox.Spec {
	return sandbox.Spec{
		ID: "r", Owner: owner, Language: wasm.Language, Code: []byte("m.wasm"),
		Files: []sandbox.File{{Path: "m.wasm", Content: m}}, Limits: sandbox.Limits{Memory: 128 << 20, Wall: time.Minute},
	}
}

var hello = sandboxtest.Module{
	Imports: []sandboxtest.Import{sandboxtest.WASI("fd_write", 4)}, Memory: 1,
	Data: "\x08\x00\x00\x00\x06\x00\x00\x00hello\n",
	// fd_write(1, 0, 1, 32)
	Body: "\x41\x01\x41\x00\x41\x01\x41\x20\x10\x00\x1a",
}.Bytes()

func TestHello(t *testing.T) {
	b := open(t, wasm.Config{})
	for range 3 {
		r, err := b.Run(t.Context(), spec("a", hello), nil)
		if err != nil || r.Status != sandbox.OK || string(r.Stdout) != "hello\n" {
			t.Errorf("Run = %s, %q, %v; %s", r.Status, r.Stdout, err, r.Message)
		}
	}
}

func TestHostileModules(t *testing.T) {
	b := open(t, wasm.Config{})
	const (
		loop        = "\x03\x40\x0c\x00\x0b"                                 // loop br 0 end
		grow        = "\x03\x40\x41\x10\x40\x00\x41\x7f\x47\x0d\x00\x0b\x00" // loop memory.grow(16) != -1: br 0 end unreachable
		fill        = "\x41\x00\xd0\x70\x41\x80\x80\x80\xc0\x00\xfc\x11\x00" // table.fill(0, null, 1<<27)
		unreachable = "\x00"
	)
	for _, tt := range []struct {
		name   string
		module []byte
		status sandbox.Status
		exit   int
		code   string
		says   string
	}{
		{"endless loop", sandboxtest.Module{Body: loop}.Bytes(), sandbox.Timeout, 124, "", "time limit"},
		{"memory without end", sandboxtest.Module{Memory: 1, Body: grow}.Bytes(), sandbox.OutOfMemory, 137, "", ""},
		{"memory at the start", sandboxtest.Module{Memory: 60000}.Bytes(), sandbox.OutOfMemory, 137, "", ""},
		{"giant table", sandboxtest.Module{Table: 1 << 27}.Bytes(), sandbox.OK, 0, "", ""}, // nobody touches it
		{"giant table, filled", sandboxtest.Module{Table: 1 << 27, Body: fill}.Bytes(), sandbox.OutOfMemory, 137, "", ""},
		{"larger table", sandboxtest.Module{Table: 1<<27 + 1}.Bytes(), sandbox.Error, 1, "language_error", "not valid"},
		{"trap", sandboxtest.Module{Body: unreachable}.Bytes(), sandbox.Error, 1, "language_error", "unreachable"},
		{"no module", []byte("#!/bin/sh"), sandbox.Error, 1, "language_error", "not a WebAssembly module"},
		{"empty", nil, sandbox.Error, 1, "language_error", "not a WebAssembly module"},
		{"cut short", hello[:len(hello)-9], sandbox.Error, 1, "language_error", "not valid"},
		{"component", []byte("\x00asm\x0d\x00\x01\x00"), sandbox.Error, 1, "language_error", "component"},
		{"library", sandboxtest.Module{Start: "add"}.Bytes(), sandbox.Error, 1, "language_error", "_start"},
		{"unknown import", sandboxtest.Module{Imports: []sandboxtest.Import{{Module: "env", Name: "system", Params: 1}}}.Bytes(), sandbox.Error, 1, "language_error", "env.system"},
		{"import of another shape", sandboxtest.Module{Imports: []sandboxtest.Import{sandboxtest.WASI("fd_write", 2)}}.Bytes(), sandbox.Error, 1, "language_error", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := spec("a", tt.module)
			if tt.status == sandbox.Timeout {
				s.Limits.Wall = time.Second
			}
			began := time.Now()
			r, err := b.Run(t.Context(), s, nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("took %v: %s %s %s", time.Since(began), r.Status, r.ErrorCode, r.Message)
			if r.Status != tt.status || r.ExitCode != tt.exit || r.ErrorCode != tt.code || !strings.Contains(r.Message, tt.says) {
				t.Errorf("ended as %s, exit code %d, %q: %s; want %s, %d, %q, %s\nstderr %.500s", r.Status, r.ExitCode, r.ErrorCode, r.Message, tt.status, tt.exit, tt.code, tt.says, r.Stderr)
			}
		})
	}
	if r, err := b.Run(t.Context(), spec("a", hello), nil); err != nil || r.Status != sandbox.OK {
		t.Errorf("a good module after them = %s, %v", r.Status, err)
	}
}

// Recursion without end meets the memory limit or, where that is high, the most
// that a call stack may have.
func TestEndlessRecursion(t *testing.T) {
	b := open(t, wasm.Config{})
	module := sandboxtest.Module{Body: "\x10\x00"}.Bytes() // call 0
	for _, tt := range []struct {
		memory int64
		status sandbox.Status
		exit   int
		code   string
		says   string
	}{
		{64 << 20, sandbox.OutOfMemory, 137, "", ""},
		{512 << 20, sandbox.Error, 1, "language_error", "stack overflow"},
	} {
		s := spec("a", module)
		s.Limits.Memory = tt.memory
		r, err := b.Run(t.Context(), s, nil)
		if err != nil {
			t.Fatal(err)
		}
		if r.Status != tt.status || r.ExitCode != tt.exit || r.ErrorCode != tt.code || !strings.Contains(r.Message, tt.says) {
			t.Errorf("%d bytes: ended as %s, exit code %d, %q: %s; want %s, %d, %q, %s", tt.memory, r.Status, r.ExitCode, r.ErrorCode, r.Message, tt.status, tt.exit, tt.code, tt.says)
		}
	}
}

func TestManyWantOneModule(t *testing.T) {
	b := open(t, wasm.Config{})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			s := spec(fmt.Sprintf("owner-%d", i), hello)
			s.ID = fmt.Sprintf("r-%d", i)
			if r, err := b.Run(t.Context(), s, nil); err != nil || string(r.Stdout) != "hello\n" {
				t.Errorf("Run = %s, %q, %v; %s", r.Status, r.Stdout, err, r.Message)
			}
		})
	}
	wg.Wait()
}

// A module that comes with a run is compiled in the run's time, and no longer than
// somebody waits for it.
func TestCompilingTakesTheTimeOfTheRun(t *testing.T) {
	b := open(t, wasm.Config{})
	s := spec("a", sandboxtest.Module{Body: strings.Repeat("\x41\x01\x1a", 1<<18)}.Bytes()) // i32.const 1 drop
	s.Limits.Wall = 5 * time.Millisecond                                                    // in which no jail starts and compiles that
	r, err := b.Run(t.Context(), s, nil)
	if err != nil || r.Status != sandbox.Timeout || r.ExitCode != 124 || !strings.Contains(r.Message, "compiled within the time limit of 5ms") {
		t.Errorf("Run = %+v, %v", r, err)
	}
	s.Limits.Wall = time.Minute
	if r, err := b.Run(t.Context(), s, nil); err != nil || r.Status != sandbox.OK || r.Usage.Wall < 10*time.Millisecond {
		t.Errorf("the same with time = %+v, %v", r, err)
	}
}

func TestModulesOfTheNode(t *testing.T) {
	store, err := runtime.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "hello.wasm")
	if err := os.WriteFile(file, hello, 0o600); err != nil {
		t.Fatal(err)
	}
	added, err := store.AddModule(t.Context(), runtime.AddModuleConfig{File: file, Name: "hello"})
	if err != nil {
		t.Fatal(err)
	}
	b := open(t, wasm.Config{Modules: store})
	for _, s := range []sandbox.Spec{
		{Code: []byte("sha256:" + added.Module)}, {Runtime: "hello"},
	} {
		s.ID, s.Owner, s.Language = "r", "a", wasm.Language
		if r, err := b.Run(t.Context(), s, nil); err != nil || string(r.Stdout) != "hello\n" || r.Runtime != "sha256:"+added.Module {
			t.Errorf("Run = %s, %q, runtime %s, %v; %s", r.Status, r.Stdout, r.Runtime, err, r.Message)
		}
	}
	s := sandbox.Spec{ID: "r", Owner: "a", Language: wasm.Language, Code: []byte("sha256:" + strings.Repeat("0", 64))}
	if _, err := b.Run(t.Context(), s, nil); !errors.Is(err, sandbox.ErrUnavailable) || !strings.Contains(err.Error(), "runtime add") {
		t.Errorf("Run of an unknown module = %v", err)
	}
	s.Code = []byte("nothing.wasm")
	if _, err := b.Run(t.Context(), s, nil); !errors.Is(err, sandbox.ErrSpec) {
		t.Errorf("Run without its module = %v", err)
	}
}

// Compiled code that was damaged, or is another build's, is made again.
func TestDamagedCodeIsMadeAgain(t *testing.T) {
	dir := t.TempDir()
	b := open(t, wasm.Config{Dir: dir, Idle: time.Millisecond})
	if r, err := b.Run(t.Context(), spec("a", hello), nil); err != nil || r.Status != sandbox.OK {
		t.Fatalf("Run = %s, %v", r.Status, err)
	}
	codes, err := filepath.Glob(filepath.Join(dir, "*", "code", "*", "*"))
	if err != nil || len(codes) != 2 {
		t.Fatalf("compiled code: %v, %v", codes, err)
	}
	for _, code := range codes {
		if err := errors.Join(os.Remove(code), os.WriteFile(code, []byte("WAZEVOnonsense"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := b.Run(t.Context(), spec("b", hello), nil); err != nil || string(r.Stdout) != "hello\n" {
		t.Errorf("Run = %s, %q, %v", r.Status, r.Stdout, err)
	}
}

func TestModulesGiveWay(t *testing.T) {
	dir := t.TempDir()
	b := open(t, wasm.Config{Dir: dir, CacheBytes: 1})
	for i := range 3 {
		m := sandboxtest.Module{Body: strings.Repeat("\x01", i)}.Bytes()
		if r, err := b.Run(t.Context(), spec("a", m), nil); err != nil || r.Status != sandbox.OK {
			t.Fatalf("Run = %s, %v", r.Status, err)
		}
	}
	kept, err := filepath.Glob(filepath.Join(dir, strings.Repeat("[0-9a-f]", 8)+"*"))
	if err != nil || len(kept) != 1 {
		t.Errorf("kept %v, %v", kept, err)
	}
}

func BenchmarkSmallModule(b *testing.B) {
	backend := open(b, wasm.Config{MaxRuns: 1 << 30})
	b.ReportAllocs()
	for b.Loop() {
		if r, err := backend.Run(b.Context(), spec("a", hello), nil); err != nil || r.Status != sandbox.OK {
			b.Fatal(r.Status, err)
		}
	}
}

func TestConformance(t *testing.T) {
	b := open(t, wasm.Config{MaxIdle: 2})
	// Two workers wait for their owners, each with its jail's init.
	sandboxtest.Test(t, b, sandboxtest.Options{Language: wasm.Language, Residents: 4})
}
