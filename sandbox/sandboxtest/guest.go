package sandboxtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/agenticraft/node/sandbox"
)

// guestWord begins the code of a case in WebAssembly that runs the program in
// testdata/guest; what follows are its arguments. Other code is a module.
const guestWord = "guest "

// guestEnv names the compiled program, for tests that run themselves as another
// user, who may not build.
const guestEnv = "AGENTICRAFT_TEST_GUEST"

// guest is the compiled program, built once per test binary.
var guest = sync.OnceValues(func() ([]byte, error) {
	if name := os.Getenv(guestEnv); name != "" {
		return os.ReadFile(name)
	}
	dir, err := os.MkdirTemp("", "guest")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // in the temporary folder anyway
	out := filepath.Join(dir, "guest.wasm")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, "github.com/agenticraft/node/sandbox/sandboxtest/testdata/guest")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build guest: %w\n%s", err, text)
	}
	return os.ReadFile(out)
})

// module makes spec run the code of a case in WebAssembly.
func module(t testing.TB, spec *sandbox.Spec, code string) {
	t.Helper()
	content := []byte(code)
	if args, ok := strings.CutPrefix(code, guestWord); ok {
		var err error
		if content, err = guest(); err != nil {
			t.Fatal(err)
		}
		spec.Args = strings.Split(args, " ")
	}
	spec.Code = []byte("case.wasm")
	spec.Files = append(spec.Files, sandbox.File{Path: "case.wasm", Content: content})
}
