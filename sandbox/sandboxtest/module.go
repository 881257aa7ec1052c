package sandboxtest

import "encoding/binary"

// Module is a small WebAssembly module whose only function, _start, is Body.
type Module struct {
	Imports []Import
	Memory  uint32 // pages of the least memory; 0 for none
	Table   uint32 // elements of the least table; 0 for none
	Body    string // instructions, without the end
	Data    string // at address 0
	Start   string // name of the exported function; "" for _start
}

// Import is a function of another module with Params parameters of 32 bits and,
// unless it ends the program, a result.
type Import struct {
	Module, Name string
	Params       int
	Ends         bool
}

// WASI is an import of WASI preview 1.
func WASI(name string, params int) Import {
	return Import{Module: "wasi_snapshot_preview1", Name: name, Params: params, Ends: name == "proc_exit"}
}

// Bytes encodes the module. The imports are functions 0 and up, _start is the
// one after them.
func (m Module) Bytes() []byte {
	uleb := func(n uint32) []byte { return binary.AppendUvarint(nil, uint64(n)) }
	vec := func(items ...[]byte) []byte {
		out := uleb(uint32(len(items)))
		for _, i := range items {
			out = append(out, i...)
		}
		return out
	}
	text := func(s string) []byte { return append(uleb(uint32(len(s))), s...) }
	out := []byte("\x00asm\x01\x00\x00\x00")
	section := func(id byte, body []byte) {
		out = append(append(append(out, id), uleb(uint32(len(body)))...), body...)
	}
	types := [][]byte{{0x60, 0, 0}}
	var imports [][]byte
	for _, i := range m.Imports {
		t := append([]byte{0x60}, uleb(uint32(i.Params))...)
		for range i.Params {
			t = append(t, 0x7f)
		}
		if i.Ends {
			t = append(t, 0)
		} else {
			t = append(t, 1, 0x7f)
		}
		types = append(types, t)
		imports = append(imports, append(append(append(text(i.Module), text(i.Name)...), 0), uleb(uint32(len(types)-1))...))
	}
	section(1, vec(types...))
	if len(imports) > 0 {
		section(2, vec(imports...))
	}
	section(3, vec([]byte{0}))
	if m.Table > 0 {
		section(4, vec(append([]byte{0x70, 0}, uleb(m.Table)...)))
	}
	exports := [][]byte{}
	if m.Memory > 0 {
		section(5, vec(append([]byte{0}, uleb(m.Memory)...)))
		exports = append(exports, append(text("memory"), 2, 0))
	}
	start := m.Start
	if start == "" {
		start = "_start"
	}
	exports = append(exports, append(append(text(start), 0), uleb(uint32(len(imports)))...))
	section(7, vec(exports...))
	section(10, vec(text("\x00"+m.Body+"\x0b")))
	if m.Data != "" {
		section(11, vec(append([]byte{0, 0x41, 0, 0x0b}, text(m.Data)...)))
	}
	return out
}
