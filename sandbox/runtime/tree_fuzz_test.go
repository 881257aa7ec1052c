package runtime

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/agenticraft/node/sandbox"
)

// Whatever an archive holds, nothing is written beside the tree, and what is
// refused is refused as the archive's fault.
func FuzzArchive(f *testing.F) {
	pack := func(headers ...tar.Header) []byte {
		var out bytes.Buffer
		w := tar.NewWriter(&out)
		for _, h := range headers {
			h.Mode = 0o755
			if err := w.WriteHeader(&h); err != nil {
				f.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			f.Fatal(err)
		}
		return out.Bytes()
	}
	f.Add(pack(tar.Header{Name: "bin/sh"}, tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "bin"}, tar.Header{Name: "l/x"}))
	f.Add(pack(tar.Header{Name: "a/.wh.b"}, tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "a"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		above := t.TempDir()
		stage, file := filepath.Join(above, "stage"), filepath.Join(above, "image.tar")
		if err := errors.Join(os.Mkdir(stage, 0o755), os.WriteFile(file, data, 0o600)); err != nil {
			t.Fatal(err)
		}
		tree, err := openTree(t.Context(), stage)
		if err != nil {
			t.Fatal(err)
		}
		defer tree.close()
		x := &taker{ctx: t.Context(), root: tree.root}
		if err := x.archive(file, stage); err != nil && !errors.Is(err, sandbox.ErrSpec) {
			t.Errorf("archive = %v", err)
		}
		if left, err := os.ReadDir(above); err != nil || len(left) != 2 {
			t.Errorf("beside the tree lies %v, %v", left, err)
		}
	})
}
