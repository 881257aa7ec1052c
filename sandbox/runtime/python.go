package runtime

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"time"

	"github.com/agenticraft/node/sandbox"
	"golang.org/x/sync/errgroup"
)

//go:embed probe.py
var probeScript string

//go:embed compile.py
var compileScript string

// Bounds of what an interpreter may take or answer while it is copied.
const (
	probeTime     = 10 * time.Second
	maxProbeBytes = 64 << 10
	maxTreeBytes  = 512 << 20
	// compilers is how many interpreters compile, each a fixed share of the
	// modules, so that their number on a machine does not show in the result.
	compilers = 4
)

// left out of the library: tests, graphical tools, installers, third-party
// packages, C headers and objects for embedding, caches.
var leftOut = map[string]bool{
	"test": true, "tests": true, "idlelib": true, "tkinter": true, "turtledemo": true, "ensurepip": true,
	"site-packages": true, "dist-packages": true, "__pycache__": true, "lib2to3": true,
	// Of the time zones: the machine's own, and the same ones in other versions.
	"localtime": true, "posixrules": true, "posix": true, "right": true,
	"sitecustomize.py": true, "usercustomize.py": true, "EXTERNALLY-MANAGED": true,
}

// zoneinfo is where Python looks for time zones.
const zoneinfo = "/usr/share/zoneinfo"

// mountPoints are the empty folders on which a jail mounts its own.
var mountPoints = []string{"dev", "proc", "tmp", "work"}

// AddConfig says which interpreter to copy.
type AddConfig struct {
	Name        string       // by which runs may ask for it; "": it is the language's default
	Interpreter string       // path; "": the system's python3, then the first on PATH
	Progress    func(string) // receives one line per step; may be nil
	// Packages to install into a Python runtime; see [Packages].
	Packages Packages
}

// interpreter is the answer of probe.py.
type interpreter struct {
	Implementation string   `json:"implementation"`
	Version        []int    `json:"version"`
	Executable     string   `json:"executable"`
	Prefix         string   `json:"prefix"`
	Stdlib         string   `json:"stdlib"`
	Dynload        []string `json:"dynload"`
}

// AddPython copies the host's CPython into the store and returns the runtime.
// Adding the same interpreter again returns the runtime that is there. Without
// a usable interpreter, the error wraps [sandbox.ErrUnavailable] and names the
// command that installs one.
func (s *Store) AddPython(ctx context.Context, cfg AddConfig) (Runtime, error) {
	py, err := findPython(ctx, cfg.Interpreter)
	if err != nil {
		return Runtime{}, err
	}
	if cfg.Packages.Requirements != "" {
		if err := cfg.Packages.check(); err != nil {
			return Runtime{}, err
		}
	}
	tell := orSilent(cfg.Progress)
	tell(fmt.Sprintf("copying Python %s from %s", py.version(), py.Executable))
	return s.add(ctx, recipe{
		draft: Runtime{Name: cfg.Name, Languages: []string{"python"}, Version: py.version()},
		fill: func(stage string, r *Runtime) (err error) {
			r.Argv, err = copyPython(ctx, py, stage, cfg.Packages, tell)
			return err
		},
		finish: func(stage string) error {
			tell("compiling the library")
			return compileAll(ctx, py.Executable, stage)
		},
		progress: tell,
	})
}

// findPython asks candidates until one answers as a CPython that will do.
func findPython(ctx context.Context, name string) (interpreter, error) {
	candidates := []string{name}
	if name == "" {
		candidates = candidatePythons()
	}
	var tried []error
	for _, c := range candidates {
		py, err := probe(ctx, c)
		if err == nil {
			return py, nil
		}
		tried = append(tried, fmt.Errorf("%s: %w", c, err))
	}
	if name != "" {
		return interpreter{}, fmt.Errorf("%w: not a usable python: %w", sandbox.ErrUnavailable, errors.Join(tried...))
	}
	err := fmt.Errorf("%w: no python3 on this machine; run: apt-get install python3", sandbox.ErrUnavailable)
	return interpreter{}, errors.Join(append([]error{err}, tried...)...)
}

func candidatePythons() []string {
	return executables("python3")
}

func probe(ctx context.Context, name string) (interpreter, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, "-I", "-S", "-c", probeScript)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "LANG=C.UTF-8"}
	cmd.WaitDelay = time.Second
	out, errs := &capped{most: maxProbeBytes}, &capped{most: 200}
	cmd.Stdout, cmd.Stderr = out, errs
	if err := cmd.Run(); err != nil {
		return interpreter{}, fmt.Errorf("ask interpreter: %w: %s", err, bytes.TrimSpace(errs.data))
	}
	var py interpreter
	if err := json.Unmarshal(out.data, &py); err != nil {
		return interpreter{}, fmt.Errorf("ask interpreter: %w", err)
	}
	switch {
	case py.Implementation != "cpython":
		return interpreter{}, fmt.Errorf("its implementation is %.20q, not cpython", py.Implementation)
	case len(py.Version) != 3 || py.Version[0] != 3 || py.Version[1] < 8:
		return interpreter{}, fmt.Errorf("its version is %v, older than 3.8", py.Version)
	}
	for _, p := range append([]string{py.Executable, py.Prefix, py.Stdlib}, py.Dynload...) {
		if !filepath.IsAbs(p) {
			return interpreter{}, fmt.Errorf("it names the path %q", p)
		}
	}
	return py, nil
}

func (py interpreter) version() string {
	return fmt.Sprintf("%d.%d.%d", py.Version[0], py.Version[1], py.Version[2])
}

// copyPython copies the interpreter, its library and its shared objects to
// where they would be under the prefix /usr, and returns the argv that starts
// the copy. Python finds its library from its own path, wherever it was built.
func copyPython(ctx context.Context, py interpreter, stage string, packages Packages, tell func(string)) ([]string, error) {
	t, err := openTree(ctx, stage)
	if err != nil {
		return nil, err
	}
	defer t.close()
	bin := fmt.Sprintf("/usr/bin/python%d.%d", py.Version[0], py.Version[1])
	if err := t.copyFile(py.Executable, bin, 0o755); err != nil {
		return nil, err
	}
	objects := []string{py.Executable}
	for i, dir := range append([]string{py.Stdlib}, py.Dynload...) {
		if i > 0 && within(py.Stdlib, dir) {
			continue
		}
		if !within(py.Prefix, dir) {
			return nil, fmt.Errorf("library %s is not below the prefix %s", dir, py.Prefix)
		}
		dest := "/usr" + strings.TrimPrefix(dir, strings.TrimSuffix(py.Prefix, "/"))
		found, err := t.copyLibrary(dir, dest)
		if err != nil {
			return nil, err
		}
		objects = append(objects, found...)
	}
	// The library's zoneinfo reads the system's time zones, where there are any.
	if _, err := os.Stat(zoneinfo); err == nil {
		if _, err := t.copyLibrary(zoneinfo, zoneinfo); err != nil {
			return nil, err
		}
	}
	if packages.Requirements != "" {
		tell("installing the packages of " + packages.Requirements)
		site := filepath.Join(stage, "usr", strings.TrimPrefix(py.Stdlib, py.Prefix), "site-packages")
		found, err := packages.install(ctx, py, site)
		if err != nil {
			return nil, err
		}
		objects = append(objects, found...)
		t.own = stage
	}
	if err := t.copyLibraries(objects); err != nil {
		return nil, err
	}
	return []string{bin}, nil
}

// tree writes below a stage.
type tree struct {
	ctx   context.Context
	root  *os.Root
	own   string // folder of the tree itself on the host, "" if no object comes from it
	bytes int64
}

// copyLibrary copies a library folder, without what is left out, and returns
// the shared objects in it by their host paths.
func (t *tree) copyLibrary(from, to string) (objects []string, err error) {
	err = filepath.WalkDir(from, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := t.ctx.Err(); err != nil {
			return err
		}
		if leftOut[d.Name()] || d.IsDir() && strings.HasPrefix(d.Name(), "config-") {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		dest := to + strings.TrimPrefix(name, from)
		// A link is copied as what it leads to, if that is a file: links of a
		// distribution lead to places that the runtime does not have.
		info, err := os.Stat(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return t.root.MkdirAll(local(dest), 0o755)
		case !info.Mode().IsRegular():
			return nil
		}
		if strings.Contains(d.Name(), ".so") {
			if strings.HasPrefix(d.Name(), "_tkinter.") || strings.HasPrefix(d.Name(), "_test") || strings.HasPrefix(d.Name(), "_ctypes_test") || strings.HasPrefix(d.Name(), "_xxtestfuzz") {
				return nil
			}
			objects = append(objects, name)
		}
		return t.copyFile(name, dest, 0o644)
	})
	if err != nil {
		return nil, fmt.Errorf("copy library: %w", err)
	}
	return objects, nil
}

// copyFile copies the content of a host file, never its inode: a jailed
// program must not share page cache with the host's own binaries.
func (t *tree) copyFile(from, to string, mode fs.FileMode) error {
	to, err := t.merge(to)
	if err != nil {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("copy file: %w", err)
	}
	defer in.Close()
	if err := t.root.MkdirAll(path.Dir(to), 0o755); err != nil {
		return fmt.Errorf("copy file: %w", err)
	}
	out, err := t.root.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, fs.ErrExist) {
		return nil // the same file under two names of one folder, as /lib and /usr/lib
	}
	if err != nil {
		return fmt.Errorf("copy file: %w", err)
	}
	// Reading into our own memory rules out a copy by reference.
	n, err := io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{in}, make([]byte, 128<<10))
	if err := errors.Join(err, out.Chmod(mode), out.Close()); err != nil {
		return fmt.Errorf("copy %s: %w", from, err)
	}
	if t.bytes += n; t.bytes > maxTreeBytes {
		return fmt.Errorf("runtime has more than %d bytes", int64(maxTreeBytes))
	}
	return nil
}

// merge follows the host's links of top folders, such as /lib to usr/lib, makes
// the same ones in the tree, and returns the path relative to the tree.
func (t *tree) merge(name string) (string, error) {
	name = local(name)
	top, rest, below := strings.Cut(name, "/")
	if !below {
		return name, nil
	}
	target, err := os.Readlink("/" + top)
	if err != nil {
		return name, nil // a plain folder
	}
	target = local(filepath.Join("/", target))
	if !filepath.IsLocal(target) || target == "." {
		return "", fmt.Errorf("/%s leads to %s", top, target)
	}
	if err := t.root.MkdirAll(target, 0o755); err != nil {
		return "", fmt.Errorf("make folder: %w", err)
	}
	if err := t.root.Symlink(target, top); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("make link: %w", err)
	}
	return path.Join(target, rest), nil
}

// compileAll writes the .pyc files of every module in stage.
func compileAll(ctx context.Context, python, stage string) error {
	shares := make([]bytes.Buffer, compilers)
	n := 0
	err := filepath.WalkDir(stage, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && strings.HasSuffix(name, ".py") && !strings.Contains(name, "\n") {
			rel, _ := filepath.Rel(stage, name) // both absolute: never fails
			fmt.Fprintln(&shares[n%compilers], rel)
			n++
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("list modules: %w", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(goruntime.GOMAXPROCS(0))
	for i := range shares {
		g.Go(func() error {
			// A fixed hash seed, for the order of sets shows in the result; -I
			// would ignore it, hence the empty environment instead.
			cmd := exec.CommandContext(ctx, python, "-S", "-s", "-W", "ignore", "-X", "utf8", "-c", compileScript)
			cmd.Env = []string{"PYTHONHASHSEED=0"}
			cmd.Dir = stage
			cmd.Stdin = &shares[i]
			cmd.WaitDelay = time.Second
			errs := &capped{most: 2 << 10}
			cmd.Stderr = errs
			if err := cmd.Run(); err != nil {
				return fmt.Errorf("compile library: %w: %s", err, bytes.TrimSpace(errs.data))
			}
			return nil
		})
	}
	return g.Wait()
}

// capped keeps the first bytes written to it.
type capped struct {
	data []byte
	most int
}

func (c *capped) Write(p []byte) (int, error) {
	c.data = append(c.data, p[:min(len(p), c.most-len(c.data))]...)
	return len(p), nil
}

// local makes an absolute path relative to the root of a tree.
func local(name string) string { return strings.TrimPrefix(path.Clean(name), "/") }

func within(dir, name string) bool {
	rel, err := filepath.Rel(dir, name)
	return err == nil && filepath.IsLocal(rel)
}
