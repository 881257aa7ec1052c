package runtime

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/agenticraft/node/sandbox"
)

// installTime bounds the installation of packages, downloads included.
const installTime = 10 * time.Minute

// Packages are those of a Python runtime beside the standard library. They are
// installed once, by an operator, with the host's pip: wheels only, so that no
// code of a package runs on the host.
type Packages struct {
	Requirements string   // file of requirements, a name and a version specifier a line; "": none
	FindLinks    []string // folders of wheels
	Index        string   // URL of a package index; "": none, the wheels of FindLinks must do
}

// isRequirement admits names, extras, version specifiers and markers: no
// options, files, URLs or repositories, which would be built rather than
// unpacked.
var isRequirement = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*(\[[A-Za-z0-9._, -]*\])?\s*([(<>=!~][^/@\\]*)?(;[^/@\\]*)?$`).MatchString

func (p Packages) check() error {
	text, err := os.ReadFile(p.Requirements)
	if err != nil {
		return fmt.Errorf("%w: %w", sandbox.ErrSpec, err)
	}
	if len(p.FindLinks) == 0 && p.Index == "" {
		return refuse("packages come from somewhere: say --find-links DIR or --index-url URL")
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line, _, _ := strings.Cut(lines.Text(), "#")
		if line = strings.TrimSpace(line); line != "" && !isRequirement(line) {
			return refuse("%s, line %d: %.80q is not the name of a package with a version", p.Requirements, n, line)
		}
	}
	return lines.Err()
}

// install, of what was checked, puts the packages into the folder site and returns the shared objects
// among them.
func (p Packages) install(ctx context.Context, py interpreter, site string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, installTime)
	defer cancel()
	home, err := os.MkdirTemp("", "agenticraft-pip-")
	if err != nil {
		return nil, fmt.Errorf("install packages: %w", err)
	}
	defer func() { _ = os.RemoveAll(home) }() // in the temporary folder anyway
	args := []string{
		"-I", "-m", "pip", "install", "--quiet", "--target", site, "--only-binary", ":all:", "--no-compile", "--no-cache-dir",
		"--disable-pip-version-check", "--no-input", "--requirement", p.Requirements,
	}
	for _, dir := range p.FindLinks {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return nil, fmt.Errorf("install packages: %w", err)
		}
		args = append(args, "--find-links", abs)
	}
	if p.Index == "" {
		args = append(args, "--no-index")
	} else {
		args = append(args, "--index-url", p.Index)
	}
	cmd := exec.CommandContext(ctx, py.Executable, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + home, "LANG=C.UTF-8", "PIP_CONFIG_FILE=/dev/null", "PIP_ROOT_USER_ACTION=ignore"}
	cmd.WaitDelay = time.Second
	errs := &capped{most: 4 << 10}
	cmd.Stderr = errs
	if err := cmd.Run(); err != nil {
		text := strings.TrimSpace(string(errs.data))
		if strings.Contains(text, "No module named pip") {
			return nil, fmt.Errorf("%w: this Python has no pip; run: apt-get install python3-pip", sandbox.ErrUnavailable)
		}
		return nil, refuse("pip did not install the packages: %v: %s", err, text)
	}
	// Programs for the command line name the host's interpreter.
	if err := os.RemoveAll(filepath.Join(site, "bin")); err != nil {
		return nil, fmt.Errorf("install packages: %w", err)
	}
	var objects []string
	var total int64
	err = filepath.WalkDir(site, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if strings.HasPrefix(d.Name(), "direct_url.json") {
			return os.Remove(name) // names a folder of this machine
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Mode()&(fs.ModeSymlink|fs.ModeDevice|fs.ModeNamedPipe|fs.ModeSocket) != 0 {
			return refuse("the package file %s is no regular file", d.Name())
		}
		if total += info.Size(); total > maxForeignBytes {
			return refuse("the packages have more than %d bytes", int64(maxForeignBytes))
		}
		if info.Mode().IsRegular() && strings.Contains(d.Name(), ".so") {
			objects = append(objects, name)
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // an empty list of requirements
	}
	if err != nil {
		return nil, fmt.Errorf("install packages: %w", err)
	}
	return objects, nil
}
