//go:build linux

package main

// workers are the programs that this binary runs inside a jail, by the name
// given as its first argument; the others are theirs. A worker calls closeOff
// before it does anything with a program: then the process has closed itself off
// from every system call that a Go program computing in memory and talking over
// its control descriptor does not need.
var workers = map[string]func(args []string, closeOff func() error) error{
	"probe":        func(_ []string, closeOff func() error) error { return closeOff() },
	"starlark":     starlarkWorker,
	"wasm":         wasmWorker,
	"wasm-compile": wasmCompiler, // does not close itself off: it writes a file, and runs nothing
}
