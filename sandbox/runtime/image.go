package runtime

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"
	"strings"

	"github.com/agenticraft/node/sandbox"
)

const (
	maxArchiveBytes = maxForeignBytes + 256<<20 // of an archive, unpacked
	maxLayers       = 256
	maxImageJSON    = 4 << 20
)

// archive takes a tree from a tar archive: the layers of an image, one upon the
// other, or a plain root file system. work is a folder for what must be unpacked
// first.
func (x *taker) archive(name, work string) (err error) {
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("open archive: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	packed, err := isGzip(f)
	if err != nil {
		return err
	}
	if packed {
		whole, err := unpack(f, work)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, whole.Close(), os.Remove(whole.Name())) }()
		f = whole
	}
	parts, err := contents(f)
	if err != nil {
		return err
	}
	layers, err := parts.layers()
	if err != nil {
		return err
	}
	if layers == nil {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return fmt.Errorf("read archive: %w", err)
		}
		return x.layer(f, false)
	}
	for _, l := range layers {
		in, err := parts.open(l)
		if err != nil {
			return err
		}
		r, err := plain(in)
		if err != nil {
			return refuse("layer %.80q: %v", l, err)
		}
		if err := x.layer(r, true); err != nil {
			return fmt.Errorf("layer %.80q: %w", l, err)
		}
	}
	return nil
}

func isGzip(f *os.File) (bool, error) {
	var magic [2]byte
	_, err := f.ReadAt(magic[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("read archive: %w", err)
	}
	return magic == [2]byte{0x1f, 0x8b}, nil
}

// unpack writes what f holds to a file in dir, for archives are read twice.
func unpack(f io.Reader, dir string) (*os.File, error) {
	in, err := gzip.NewReader(f)
	if err != nil {
		return nil, refuse("the archive cannot be unpacked: %v", err)
	}
	out, err := os.CreateTemp(path.Dir(dir), stagePrefix+"archive-")
	if err != nil {
		return nil, fmt.Errorf("unpack archive: %w", err)
	}
	n, err := io.Copy(out, io.LimitReader(in, maxArchiveBytes+1))
	if err == nil && n > maxArchiveBytes {
		err = refuse("the archive unpacks to more than %d bytes", int64(maxArchiveBytes))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: unpack archive: %w", sandbox.ErrSpec, err), out.Close(), os.Remove(out.Name()))
	}
	return out, nil
}

// plain unpacks a layer as it is read.
func plain(r io.Reader) (io.Reader, error) {
	in := bufio.NewReader(r)
	magic, err := in.Peek(4)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return nil, err
	case len(magic) >= 2 && magic[0] == 0x1f && magic[1] == 0x8b:
		return gzip.NewReader(in)
	case string(magic) == "\x28\xb5\x2f\xfd":
		return nil, errors.New("it is packed with zstd; save the image with gzip or without")
	}
	return in, nil
}

// imageParts are the files of an archive by name, with their places in it.
type imageParts struct {
	file  *os.File
	parts map[string]*io.SectionReader
}

func contents(f *os.File) (imageParts, error) {
	p := imageParts{file: f, parts: make(map[string]*io.SectionReader)}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return p, fmt.Errorf("read archive: %w", err)
	}
	in := tar.NewReader(f)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return p, nil
		}
		if err != nil {
			return p, refuse("the archive cannot be read: %v", err)
		}
		if len(p.parts) > maxEntries {
			return p, refuse("the archive has more than %d entries", maxEntries)
		}
		at, err := f.Seek(0, io.SeekCurrent) // a tar reader takes no more than it needs
		if err != nil {
			return p, fmt.Errorf("read archive: %w", err)
		}
		if h.Typeflag == tar.TypeReg {
			p.parts[path.Clean(h.Name)] = io.NewSectionReader(f, at, h.Size)
		}
	}
}

func (p imageParts) open(name string) (*io.SectionReader, error) {
	part := p.parts[path.Clean(name)]
	if part == nil {
		return nil, refuse("the image lacks its part %.80q", name)
	}
	if _, err := part.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("read image: %w", err)
	}
	return part, nil
}

func (p imageParts) decode(name string, v any) error {
	part, err := p.open(name)
	if err != nil {
		return err
	}
	if err := json.NewDecoder(io.LimitReader(part, maxImageJSON)).Decode(v); err != nil {
		return refuse("%.80q of the image cannot be read: %v", name, err)
	}
	return nil
}

var isBlob = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`).MatchString

// layers names the parts that are an image's layers, the lowest first; nil if
// the archive is no image.
func (p imageParts) layers() ([]string, error) {
	var out []string
	switch {
	case p.parts["manifest.json"] != nil: // docker save
		var manifest []struct{ Layers []string }
		if err := p.decode("manifest.json", &manifest); err != nil {
			return nil, err
		}
		if len(manifest) != 1 {
			return nil, refuse("the archive holds %d images, not one", len(manifest))
		}
		out = manifest[0].Layers
	case p.parts["index.json"] != nil && p.parts["oci-layout"] != nil:
		type reference struct{ Digest string }
		var index struct{ Manifests []reference }
		if err := p.decode("index.json", &index); err != nil {
			return nil, err
		}
		if len(index.Manifests) != 1 || !isBlob(index.Manifests[0].Digest) {
			return nil, refuse("the archive holds %d images, not one", len(index.Manifests))
		}
		var manifest struct{ Layers []reference }
		if err := p.decode(blob(index.Manifests[0].Digest), &manifest); err != nil {
			return nil, err
		}
		for _, l := range manifest.Layers {
			if !isBlob(l.Digest) {
				return nil, refuse("the image names a layer %.80q", l.Digest)
			}
			out = append(out, blob(l.Digest))
		}
	default:
		return nil, nil
	}
	if len(out) == 0 || len(out) > maxLayers {
		return nil, refuse("the image has %d layers, not 1 to %d", len(out), maxLayers)
	}
	return out, nil
}

// blob is where an OCI layout keeps what a digest names.
func blob(digest string) string { return "blobs/" + strings.Replace(digest, ":", "/", 1) }
