package jail

import (
	"embed"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/agenticraft/node/internal/durable"
	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/jail/wire"
)

//go:embed all:bin
var bin embed.FS

// WriteHelper writes the helper into a folder under the name [wire.Helper]: binary,
// or if that is nil the embedded one.
func WriteHelper(dir string, binary []byte, mode fs.FileMode) error {
	if binary == nil {
		var err error
		if binary, err = helperBinary(); err != nil {
			return err
		}
	}
	if err := durable.WriteFile(filepath.Join(dir, wire.Helper), binary, mode); err != nil {
		return fmt.Errorf("write jail helper: %w", err)
	}
	return nil
}

// helperBinary returns the embedded helper, or an error wrapping
// [sandbox.ErrUnavailable] if this build has none.
func helperBinary() ([]byte, error) {
	b, err := fs.ReadFile(bin, "bin/jail")
	if err != nil {
		return nil, fmt.Errorf("%w: this build lacks the jail helper; run `make build`", sandbox.ErrUnavailable)
	}
	return b, nil
}
