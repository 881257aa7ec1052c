package wasm

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/runtime"
)

// module is the module of one run.
type module struct {
	digest  string // SHA-256, in hex
	content []byte // where it came with the run
	file    string // where an operator added it
}

// uploaded: it came with the run, so that compiling it is the run's own work.
func (m module) uploaded() bool { return m.file == "" }

func (m module) size(file int64) int64 { return max(int64(len(m.content)), file) }

// byDigest is how a run names a module that the node has.
const byDigest = "sha256:"

var isDigest = regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString

func digestOf(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// endings of a program's file, by language, for modules that interpret one.
var endings = map[string]string{"python": ".py", "javascript": ".js"}

// find finds the run's module, and makes of spec what its worker needs: the
// module's arguments, its own name first, and its files without the module.
func (b *Backend) find(spec *sandbox.Spec) (module, error) {
	if spec.Language != Language {
		return b.interpreter(spec)
	}
	name := string(spec.Code)
	if digest, ok := strings.CutPrefix(name, byDigest); ok || name == "" && spec.Runtime != "" {
		if !ok {
			digest = strings.TrimPrefix(spec.Runtime, byDigest)
		}
		for _, m := range b.added() {
			if m.SHA256 == digest || !ok && m.Name == digest {
				spec.Code, spec.Args = nil, slices.Insert(slices.Clone(spec.Args), 0, "module.wasm")
				return module{digest: m.SHA256, file: m.Path}, nil
			}
		}
		return module{}, fmt.Errorf("%w: this node has no module %.80q; run: agenticraft runtime add FILE.wasm, or send the module with the request", sandbox.ErrUnavailable, digest)
	}
	own, others := spec.Module()
	if own == nil {
		return module{}, fmt.Errorf("%w: the code of a wasm run is the path of one of its files, or sha256: and the digest of a module that the node has; %.80q is neither", sandbox.ErrSpec, name)
	}
	m := module{digest: digestOf(own.Content), content: own.Content}
	spec.Files = others
	spec.Code, spec.Args = nil, slices.Insert(slices.Clone(spec.Args), 0, path.Base(name))
	return m, nil
}

// interpreter finds a module that runs programs of another language. The
// program becomes a file, named as the module's first argument.
func (b *Backend) interpreter(spec *sandbox.Spec) (module, error) {
	for _, m := range b.added() {
		if !slices.Contains(m.Languages, spec.Language) || !runtime.Answers(m.Runtime, spec.Runtime) && m.SHA256 != spec.Runtime {
			continue
		}
		main := "main" + endings[spec.Language]
		for _, f := range spec.Files {
			if f.Path == main {
				return module{}, fmt.Errorf("%w: the program itself is called %s here; give that file another name", sandbox.ErrSpec, main)
			}
		}
		spec.Files = append(slices.Clone(spec.Files), sandbox.File{Path: main, Content: spec.Code})
		spec.Code, spec.Args = nil, slices.Concat([]string{spec.Language, "/" + main}, spec.Args)
		return module{digest: m.SHA256, file: m.Path}, nil
	}
	return module{}, fmt.Errorf("%w: the wasm sandbox has no module for %.40q; run: agenticraft runtime add FILE.wasm --language %.40s", sandbox.ErrUnavailable, spec.Language, spec.Language)
}
