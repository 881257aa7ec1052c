package runtime

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxManifestLine bounds one line of a stored manifest, in bytes.
const maxManifestLine = 16 << 10

// manifest lists what a runtime holds, one line per path, sorted. A line is
// one of
//
//	dir 0755 "path"
//	file 0644 SHA-256 "path"
//	link "target" "path"
//
// with paths and targets quoted as Go strings.
type manifest struct {
	lines []string
	bytes int64 // of all files; known after scan only
	files int   // known after scan only
}

// scan makes the manifest of the tree in dir by reading all of it. It refuses
// anything but folders, regular files and links.
func scan(ctx context.Context, dir string) (manifest, error) {
	var m manifest
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == dir {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		// The special bits count too: a setuid bit must not go unseen.
		mode := info.Mode() & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky)
		switch {
		case info.IsDir():
			m.lines = append(m.lines, fmt.Sprintf("dir %04o %q", uint32(mode), rel))
		case info.Mode().IsRegular():
			sum, err := hashFile(name)
			if err != nil {
				return err
			}
			m.lines = append(m.lines, fmt.Sprintf("file %04o %s %q", uint32(mode), sum, rel))
			m.bytes += info.Size()
			m.files++
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(name)
			if err != nil {
				return err
			}
			m.lines = append(m.lines, fmt.Sprintf("link %q %q", target, rel))
		default:
			return fmt.Errorf("%s is neither folder, file nor link", rel)
		}
		return nil
	})
	if err != nil {
		return manifest{}, fmt.Errorf("read runtime: %w", err)
	}
	slices.Sort(m.lines)
	return m, nil
}

// digest names the runtime that m describes.
func (m manifest) digest() string {
	sum := sha256.Sum256(m.encode())
	return hex.EncodeToString(sum[:])
}

func (m manifest) encode() []byte {
	return []byte("agenticraft runtime v1\n" + strings.Join(m.lines, "\n") + "\n")
}

// compare reports the first line that m and other do not share.
func (m manifest) compare(other manifest) error {
	for i := range max(len(m.lines), len(other.lines)) {
		switch {
		case i >= len(m.lines):
			return fmt.Errorf("there should be no %s", other.lines[i])
		case i >= len(other.lines):
			return fmt.Errorf("missing is %s", m.lines[i])
		case m.lines[i] != other.lines[i]:
			return fmt.Errorf("there is %s where %s should be", other.lines[i], m.lines[i])
		}
	}
	return nil
}

func readManifest(name string) (manifest, error) {
	f, err := os.Open(name)
	if err != nil {
		return manifest{}, fmt.Errorf("read manifest: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxManifestLine)
	var m manifest
	for first := true; lines.Scan(); first = false {
		if !first {
			m.lines = append(m.lines, lines.Text())
		}
	}
	if err := lines.Err(); err != nil {
		return manifest{}, fmt.Errorf("read manifest: %w", err)
	}
	return m, nil
}

func hashFile(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
