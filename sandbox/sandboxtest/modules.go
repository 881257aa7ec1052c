package sandboxtest

import (
	"strings"

	"github.com/agenticraft/node/sandbox"
)

// constant is the instruction i32.const of a number with its highest bit set.
const (
	huge = "\x41\x80\x80\x80\x80\x78" // -2^31, which WASI reads as 2^31
	one  = "\x41\x01"
	zero = "\x41\x00"
)

// called is a module that calls functions of WASI, each with its arguments, and
// drops what they answer.
func called(memory uint32, all ...wasiCall) string {
	m := Module{Memory: memory}
	for i, c := range all {
		m.Imports = append(m.Imports, WASI(c.name, len(c.args)))
		m.Body += strings.Join(c.args, "") + "\x10" + string(rune(i)) + "\x1a"
	}
	return string(m.Bytes())
}

type wasiCall struct {
	name string
	args []string
}

// raw is a module of the one section given, behind a type, a function and an
// export as [Module] has them.
func raw(code string) string {
	section := func(id byte, body string) string { return string([]byte{id, byte(len(body))}) + body }
	return "\x00asm\x01\x00\x00\x00" + section(1, "\x01\x60\x00\x00") + section(3, "\x01\x00") + section(7, "\x01\x06_start\x00\x00") + section(10, code)
}

// modules are WebAssembly made to hurt those who read, compile or run it.
var modules = []testCase{
	{name: "module: of no bytes", proves: "what is empty is no module", status: sandbox.Error, exit: 1, errorCode: "language_error", code: map[string]string{"wasm": ""}},
	{name: "module: ten megabytes of nothing", proves: "what is large and harmless runs", status: sandbox.OK, code: map[string]string{"wasm": string(Module{Body: strings.Repeat("\x01", 10<<20)}.Bytes())}},
	{name: "module: table.grow bomb", proves: "tables are memory", status: sandbox.OutOfMemory, exit: 137, code: map[string]string{"wasm": string(Module{Table: 1, Body: "\x03\x40\xd0\x70\x41\x80\x80\xc0\x00\xfc\x0f\x00\x41\x7f\x47\x0d\x00\x0b\x00"}.Bytes())}},
	{name: "module: four billion locals", proves: "what a function claims is not believed", status: sandbox.Error, exit: 1, errorCode: "language_error", code: map[string]string{"wasm": raw("\x01\x08\x01\xff\xff\xff\xff\x0f\x7f\x0b")}},
	{name: "module: a function longer than its section", proves: "a length is not believed", status: sandbox.Error, exit: 1, errorCode: "language_error", code: map[string]string{"wasm": raw("\x01\xff\xff\xff\xff\x07\x00\x0b")}},
	{name: "module: data beyond memory", proves: "what does not fit does not begin", status: sandbox.Error, exit: 1, errorCode: "language_error", code: map[string]string{"wasm": string(Module{Memory: 1, Data: strings.Repeat("x", 70000)}.Bytes())}},
	{name: "module: reading beyond memory", proves: "memory ends where it ends", status: sandbox.Error, exit: 1, errorCode: "language_error", code: map[string]string{"wasm": string(Module{Memory: 1, Body: "\x41\x7c\x28\x02\x00\x1a"}.Bytes())}, check: stderrHas("out of bounds")},
	{name: "module: a call of nothing", proves: "an empty place of a table is a trap", status: sandbox.Error, exit: 1, errorCode: "language_error", code: map[string]string{"wasm": string(Module{Table: 1, Body: "\x41\x00\x11\x00\x00"}.Bytes())}},
	{name: "module: deep blocks", proves: "a compiler's depth is bounded", status: sandbox.OK, code: map[string]string{"wasm": string(Module{Body: strings.Repeat("\x02\x40", 2000) + strings.Repeat("\x0b", 2000)}.Bytes())}},
	{name: "module: a library", proves: "what does not begin is refused", status: sandbox.Error, exit: 1, errorCode: "language_error", code: map[string]string{"wasm": string(Module{Start: "_initialize"}.Bytes())}},
	{name: "module: a component", proves: "another format is named", status: sandbox.Error, exit: 1, errorCode: "language_error", code: map[string]string{"wasm": "\x00asm\x0d\x00\x01\x00"}, check: stderrHas("component")},
	{
		name: "module: arguments beyond memory", proves: "host functions check what they are given", status: sandbox.OK, stdout: anything,
		code: map[string]string{"wasm": called(1,
			wasiCall{"fd_write", []string{one, huge, one, zero}}, wasiCall{"fd_read", []string{zero, huge, one, zero}},
			wasiCall{"random_get", []string{huge, one}}, wasiCall{"args_get", []string{huge, huge}}, wasiCall{"environ_get", []string{huge, huge}},
			wasiCall{"path_readlink", []string{"\x41\x03", huge, one, huge, one, zero}}, wasiCall{"fd_prestat_dir_name", []string{"\x41\x03", huge, one}},
			wasiCall{"poll_oneoff", []string{huge, huge, one, zero}}, wasiCall{"fd_close", []string{huge}}, wasiCall{"fd_renumber", []string{huge, one}})},
	},
}
