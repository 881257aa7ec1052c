package runtime

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
)

// object is what one ELF file asks of the dynamic loader.
type object struct {
	machine elf.Machine
	interp  string   // path of the loader; "" for a shared object
	needed  []string // sonames
	paths   []string // RPATH or RUNPATH, with $ORIGIN replaced
}

// errNotELF: the file is of another kind, such as a linker script.
var errNotELF = errors.New("not an ELF file")

func readObject(name string) (object, error) {
	f, err := elf.Open(name)
	if err != nil {
		if _, isFormat := errors.AsType[*elf.FormatError](err); isFormat {
			return object{}, fmt.Errorf("%s: %w", name, errNotELF)
		}
		return object{}, fmt.Errorf("read shared object: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	o := object{machine: f.Machine}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP && p.Filesz < 4096 {
			path := make([]byte, p.Filesz)
			if _, err := p.ReadAt(path, 0); err != nil {
				return object{}, fmt.Errorf("read loader of %s: %w", name, err)
			}
			o.interp = strings.TrimRight(string(path), "\x00")
		}
	}
	if o.needed, err = f.DynString(elf.DT_NEEDED); err != nil {
		return object{}, fmt.Errorf("read needs of %s: %w", name, err)
	}
	for _, tag := range []elf.DynTag{elf.DT_RPATH, elf.DT_RUNPATH} {
		values, err := f.DynString(tag)
		if err != nil {
			return object{}, fmt.Errorf("read search path of %s: %w", name, err)
		}
		for _, v := range values {
			for dir := range strings.SplitSeq(v, ":") {
				dir = strings.NewReplacer("$ORIGIN", filepath.Dir(name), "${ORIGIN}", filepath.Dir(name)).Replace(dir)
				if filepath.IsAbs(dir) {
					o.paths = append(o.paths, filepath.Clean(dir))
				}
			}
		}
	}
	return o, nil
}

// systemDirs are where every loader of this architecture looks without being
// told, so that a shared object put there is found in the jail too.
func systemDirs() []string {
	triple := map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu", "riscv64": "riscv64-linux-gnu"}[goruntime.GOARCH]
	var dirs []string
	if triple != "" {
		dirs = append(dirs, "/lib/"+triple, "/usr/lib/"+triple)
	}
	return append(dirs, "/lib64", "/usr/lib64", "/lib", "/usr/lib")
}

// configuredDirs are the further folders that /etc/ld.so.conf names.
func configuredDirs(conf string, depth int) []string {
	data, err := os.ReadFile(conf)
	if err != nil || depth > 4 {
		return nil
	}
	var dirs []string
	for line := range strings.Lines(string(data)) {
		line, _, _ = strings.Cut(line, "#")
		line = strings.TrimSpace(line)
		if pattern, isInclude := strings.CutPrefix(line, "include"); isInclude {
			pattern = strings.TrimSpace(pattern)
			if !filepath.IsAbs(pattern) {
				pattern = filepath.Join(filepath.Dir(conf), pattern)
			}
			names, _ := filepath.Glob(pattern) // a bad pattern names nothing
			for _, name := range names {
				dirs = append(dirs, configuredDirs(name, depth+1)...)
			}
		} else if filepath.IsAbs(line) {
			dirs = append(dirs, filepath.Clean(line))
		}
	}
	return dirs
}

// closure finds every shared object that the given ELF files need, directly or
// not: host path by the path it must have in the runtime. What lies below own,
// unless that is "", is in the runtime already.
func closure(roots []string, own string) (map[string]string, error) {
	system := systemDirs()
	search := append(slices.Clone(system), configuredDirs("/etc/ld.so.conf", 0)...)
	home := "" // for objects from folders that the jail's loader would not search
	found := make(map[string]string)
	sonames := make(map[string]bool)
	var todo []string

	find := func(soname string, o object) (string, bool) {
		for _, dir := range append(slices.Clone(o.paths), search...) {
			name := filepath.Join(dir, soname)
			if have, err := readObject(name); err == nil && have.machine == o.machine {
				return name, true
			}
		}
		return "", false
	}
	add := func(soname, name string) {
		dest := name
		if !slices.Contains(system, filepath.Dir(name)) {
			dest = filepath.Join(home, soname)
		}
		sonames[soname] = true
		if own == "" || !within(own, name) {
			found[dest] = name
		}
		todo = append(todo, name)
	}
	for i, root := range roots {
		o, err := readObject(root)
		if errors.Is(err, errNotELF) {
			if i == 0 {
				return nil, fmt.Errorf("%s is no program", root)
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		if i == 0 {
			if o.interp != "" {
				found[o.interp] = o.interp
				sonames[filepath.Base(o.interp)] = true
				home = filepath.Dir(o.interp)
			}
			if libc, ok := find("libc.so.6", o); ok {
				home = filepath.Dir(libc)
			}
			// glibc opens this one by itself when a thread ends early.
			if unwinder, ok := find("libgcc_s.so.1", o); ok {
				add("libgcc_s.so.1", unwinder)
			}
		}
		todo = append(todo, root)
	}
	for len(todo) > 0 {
		name := todo[0]
		todo = todo[1:]
		o, err := readObject(name)
		if err != nil {
			return nil, err
		}
		for _, soname := range o.needed {
			if sonames[soname] {
				continue
			}
			if strings.Contains(soname, "/") {
				return nil, fmt.Errorf("%s needs %s, which is named by its path", name, soname)
			}
			lib, ok := find(soname, o)
			if !ok {
				return nil, fmt.Errorf("%s needs %s, which is nowhere on this machine", name, soname)
			}
			add(soname, lib)
		}
	}
	return found, nil
}
