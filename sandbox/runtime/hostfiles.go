package runtime

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// hostDirs are where a distribution keeps what its users run.
var hostDirs = []string{"/usr/bin", "/bin", "/usr/local/bin"}

// executables lists the files of these names in the host's folders, then along
// PATH.
func executables(names ...string) []string {
	var out []string
	for _, dir := range append(slices.Clone(hostDirs), filepath.SplitList(os.Getenv("PATH"))...) {
		for _, name := range names {
			file := filepath.Join(dir, name)
			info, err := os.Stat(file)
			if err != nil || !filepath.IsAbs(dir) || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 || slices.Contains(out, file) {
				continue
			}
			out = append(out, file)
		}
	}
	return out
}

// executable is the file behind one name of the host's folders, or behind a
// path: what links lead to. Files that change who runs them are refused.
func executable(name string) (string, error) {
	candidates := []string{name}
	if !filepath.IsAbs(name) {
		candidates = executables(name)
	}
	for _, c := range candidates {
		file, err := filepath.EvalSymlinks(c)
		if err != nil {
			continue
		}
		info, err := os.Stat(file)
		if err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
			continue
		}
		if info.Mode()&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
			return "", fmt.Errorf("%s runs as somebody else", file)
		}
		return file, nil
	}
	return "", fmt.Errorf("%s: %w", name, fs.ErrNotExist)
}

// openTree makes the stage of a runtime with the folders on which a jail mounts
// its own.
func openTree(ctx context.Context, stage string) (*tree, error) {
	root, err := os.OpenRoot(stage)
	if err != nil {
		return nil, fmt.Errorf("open stage: %w", err)
	}
	t := &tree{ctx: ctx, root: root}
	for _, dir := range mountPoints {
		if err := root.MkdirAll(dir, 0o755); err != nil {
			t.close()
			return nil, fmt.Errorf("make mount point: %w", err)
		}
	}
	return t, nil
}

func (t *tree) close() { _ = t.root.Close() } // only a handle to the folder

// copyLibraries copies what the given host files need of shared objects.
func (t *tree) copyLibraries(objects []string) error {
	libraries, err := closure(objects, t.own)
	if err != nil {
		return err
	}
	for dest, name := range libraries {
		mode := fs.FileMode(0o644)
		if dest == name && strings.HasPrefix(path.Base(dest), "ld-") {
			mode = 0o755 // the kernel executes the loader
		}
		if err := t.copyFile(name, dest, mode); err != nil {
			return err
		}
	}
	return nil
}
