package jail

import (
	"embed"
	"fmt"
	"io/fs"

	"github.com/agenticraft/node/sandbox"
)

//go:embed all:bin
var bin embed.FS

// helperBinary returns the embedded helper, or an error wrapping
// [sandbox.ErrUnavailable] if this build has none.
func helperBinary() ([]byte, error) {
	b, err := fs.ReadFile(bin, "bin/jail")
	if err != nil {
		return nil, fmt.Errorf("%w: this build lacks the jail helper; run `make build`", sandbox.ErrUnavailable)
	}
	return b, nil
}
