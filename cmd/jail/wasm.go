//go:build linux

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/agenticraft/node/sandbox/worker/protocol"
)

// Places in the jail of a WASM worker.
const (
	modulePath = "/module.wasm"
	codeDir    = "/code"      // compiled code, read-only for those who run it
	madeDir    = "/work/code" // compiled code, where it is made
)

// maxModule bounds a module, in bytes.
const maxModule = 64 << 20

// engine is the interpreter of one worker, with one module in it.
type engine struct {
	runtime wazero.Runtime
	module  wazero.CompiledModule
	budget  uint64 // bytes of linear memory
}

// newEngine compiles the module, or takes the code from the folder where a
// worker that saw nothing but this module left it.
func newEngine(ctx context.Context, binary []byte, code string) (*engine, error) {
	cache, err := wazero.NewCompilationCacheWithDir(code)
	if err != nil {
		return nil, fmt.Errorf("open compiled code: %w", err)
	}
	// Debugging information makes a cancelled module return seconds late.
	cfg := wazero.NewRuntimeConfig().WithCloseOnContextDone(true).WithDebugInfoEnabled(false).WithCompilationCache(cache)
	rt := wazero.NewRuntimeWithConfig(ctx, cfg)
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, rt); err != nil {
		return nil, fmt.Errorf("make host functions: %w", err)
	}
	module, err := rt.CompileModule(ctx, binary)
	if err != nil {
		return nil, explainModule(binary, err)
	}
	known := rt.Module(wasi_snapshot_preview1.ModuleName).ExportedFunctionDefinitions()
	var unknown []string
	for _, f := range module.ImportedFunctions() {
		from, name, _ := f.Import()
		if from != wasi_snapshot_preview1.ModuleName || known[name] == nil {
			unknown = append(unknown, from+"."+name)
		}
	}
	if _, starts := module.ExportedFunctions()["_start"]; !starts {
		return nil, errors.New("the module exports no function _start: it is a library, not a program")
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		const most = 8
		text := strings.Join(unknown[:min(len(unknown), most)], ", ")
		return nil, fmt.Errorf("the module imports what WASI preview 1 does not have: %s", text)
	}
	return &engine{runtime: rt, module: module}, nil
}

// explainModule says what is wrong with a module that cannot be compiled.
func explainModule(binary []byte, err error) error {
	const componentLayer = "\x00asm\x0d\x00\x01\x00"
	switch {
	case !strings.HasPrefix(string(binary), "\x00asm"):
		return errors.New("this is not a WebAssembly module: it does not begin with \\0asm")
	case strings.HasPrefix(string(binary), componentLayer):
		return errors.New("this is a WebAssembly component; only modules for WASI preview 1 run here")
	}
	return fmt.Errorf("the module is not valid: %w", err)
}

// readModule reads the jail's module.
func readModule() ([]byte, error) {
	f, err := os.Open(modulePath)
	if err != nil {
		return nil, fmt.Errorf("open module: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	binary, err := io.ReadAll(io.LimitReader(f, maxModule+1))
	if err != nil {
		return nil, fmt.Errorf("read module: %w", err)
	}
	if len(binary) > maxModule {
		return nil, fmt.Errorf("the module has more than %d bytes", maxModule)
	}
	return binary, nil
}

// wasmWorker runs one module, again and again, as the control descriptor asks.
// Its arguments are the module's SHA-256 and how many bytes of linear memory an
// instance may have. close closes the process off; nothing of the module has
// run before.
func wasmWorker(args []string, closeOff func() error) error {
	if len(args) != 2 {
		return errors.New("wasm: two arguments are needed")
	}
	budget, err := strconv.ParseUint(args[1], 10, 64)
	if err != nil {
		return fmt.Errorf("wasm: memory: %w", err)
	}
	binary, err := readModule()
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(binary); hex.EncodeToString(sum[:]) != args[0] {
		return errors.New("wasm: the module is not the one that was asked for")
	}
	e, err := newEngine(context.Background(), binary, codeDir)
	if err != nil {
		return err
	}
	e.budget = budget
	if err := closeOff(); err != nil {
		return err
	}
	debug.FreeOSMemory() // what decoding took
	return e.serve(os.NewFile(3, "control"))
}

// serve answers requests until the other side hangs up.
func (e *engine) serve(control io.ReadWriter) error {
	if err := protocol.Write(control, protocol.Hello, []byte(moduleVersion("github.com/tetratelabs/wazero"))); err != nil {
		return err
	}
	for {
		q, err := protocol.ReadRequest(control)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := e.answer(control, q); err != nil {
			return err
		}
		reclaim()
	}
}

// wasmCompiler compiles the jail's module, leaves the code in the working
// folder, and says how that went.
func wasmCompiler([]string, func() error) error {
	report := protocol.Report{Status: "ok"}
	binary, err := readModule()
	if err != nil {
		return err
	}
	if _, err := newEngine(context.Background(), binary, madeDir); err != nil {
		report = protocol.Report{Status: "error", ExitCode: 1, ErrorCode: "language_error", Message: cut(err.Error(), maxMessage)}
	}
	report.CPU, report.Memory = cpuTime(), heldMemory()
	payload, err := json.Marshal(report)
	if err != nil {
		return fmt.Errorf("encode report: %w", err)
	}
	return protocol.Write(os.NewFile(3, "control"), protocol.Done, payload)
}
