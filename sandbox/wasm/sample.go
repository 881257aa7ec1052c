package wasm

import "github.com/agenticraft/node/sandbox"

// head is (module (memory 1) (func (export "_start") …, up to the function's body.
const head = "\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x03\x02\x01\x00\x05\x03\x01\x00\x01\x07\x0a\x01\x06_start\x00\x00"

const (
	nothing = head + "\x0a\x04\x01\x02\x00\x0b"
	// endless is (loop br 0).
	endless = head + "\x0a\x09\x01\x07\x00\x03\x40\x0c\x00\x0b\x0b"
)

// Nothing is a run, by owner, of a module that does nothing: for those who
// measure.
func Nothing(owner string) sandbox.Spec { return sample(owner, "nothing", nothing) }

// Endless is a run, by owner, of a module that only its deadline ends.
func Endless(owner string) sandbox.Spec { return sample(owner, "endless", endless) }

func sample(owner, name, module string) sandbox.Spec {
	return sandbox.Spec{
		ID: name, Owner: owner, Language: Language, Code: []byte(name + ".wasm"),
		Files: []sandbox.File{{Path: name + ".wasm", Content: []byte(module)}}, Limits: sandbox.DefaultLimits(),
	}
}
