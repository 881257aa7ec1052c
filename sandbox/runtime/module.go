package runtime

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/agenticraft/node/sandbox"
)

// moduleFile is the one file of a runtime that is a WebAssembly module.
const moduleFile = "module.wasm"

// MaxModule bounds a WebAssembly module, in bytes.
const MaxModule = 64 << 20

// Module is a WebAssembly module that an operator added.
type Module struct {
	Runtime
	Path   string // of the module on the host
	SHA256 string // of the module, in hex
}

// AddModuleConfig says which module to add.
type AddModuleConfig struct {
	File string
	Name string // by which runs may ask for it, or ""
	// Language is the one whose programs the module runs, as a Python built for
	// WASI does; "" for a program of its own.
	Language string
	Progress func(string) // receives one line per step; may be nil
}

// AddModule copies a WebAssembly module into the store.
func (s *Store) AddModule(ctx context.Context, cfg AddModuleConfig) (Runtime, error) {
	language := cfg.Language
	if language == "" {
		language = sandbox.WASM
	}
	if !isName(language) {
		return Runtime{}, fmt.Errorf("%w: %.40q is no language's name", sandbox.ErrSpec, language)
	}
	return s.add(ctx, recipe{
		draft: Runtime{Name: cfg.Name, Languages: []string{language}, Argv: []string{moduleFile}},
		fill: func(stage string, r *Runtime) (err error) {
			r.Module, err = copyModule(cfg.File, filepath.Join(stage, moduleFile))
			return err
		},
		progress: orSilent(cfg.Progress),
	})
}

// copyModule copies a module and returns its SHA-256.
func copyModule(from, to string) (digest string, err error) {
	in, err := os.Open(from)
	if err != nil {
		return "", fmt.Errorf("%w: %w", sandbox.ErrSpec, err)
	}
	defer func() { _ = in.Close() }() // only read
	head := make([]byte, 4)
	if _, err := io.ReadFull(in, head); err != nil || string(head) != "\x00asm" {
		return "", fmt.Errorf("%w: %s is not a WebAssembly module: it does not begin with \\0asm", sandbox.ErrSpec, from)
	}
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		return "", fmt.Errorf("read module: %w", err)
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return "", fmt.Errorf("copy module: %w", err)
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(out, sum), io.LimitReader(in, MaxModule+1))
	if err := errors.Join(err, out.Close()); err != nil {
		return "", fmt.Errorf("copy module: %w", err)
	}
	if n > MaxModule {
		return "", fmt.Errorf("%w: %s has more than %d bytes", sandbox.ErrSpec, from, int64(MaxModule))
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// Modules returns the WebAssembly modules of the store, the newest first.
func (s *Store) Modules() ([]Module, error) {
	list, err := s.List()
	if err != nil {
		return nil, err
	}
	var out []Module
	for _, r := range list {
		if r.Module != "" {
			out = append(out, Module{Runtime: r, Path: filepath.Join(s.dir, r.Digest, moduleFile), SHA256: r.Module})
		}
	}
	return out, nil
}
