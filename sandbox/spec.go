package sandbox

import (
	"fmt"
	"io/fs"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Caps of a spec, in bytes or numbers. They hold before any limit is looked at.
const (
	MaxCode      = 1 << 20  // bytes of Code
	MaxInput     = 16 << 20 // bytes of Files and Stdin together
	MaxFiles     = 1024     // number of Files
	maxPath      = 512      // bytes of one file's path
	maxPathDepth = 16       // folders above a file
	maxName      = 64       // bytes of ID
	maxOwner     = 256      // bytes of Owner
	maxRuntime   = 80       // bytes of Runtime: a digest and what stands before it
	MaxArgs      = 256      // number of Args
	MaxArgBytes  = 64 << 10 // bytes of Args together
)

// limitNames are the names that Required may hold.
var limitNames = map[string]bool{
	LimitMemory: true, LimitCPUPercent: true, LimitWall: true, LimitOutput: true, LimitFileSize: true,
	LimitProcesses: true, LimitNetwork: true, LimitFiles: true, LimitSyscalls: true,
}

// Validate reports, as an error wrapping [ErrSpec] that names the field, what
// no backend could run. It does not know which languages exist.
func (s Spec) Validate() error {
	switch {
	case !isName(s.ID) || len(s.ID) > maxName:
		return bad("id %q is not of the form [a-z0-9-]{1,%d}", cut(s.ID), maxName)
	case len(s.Owner) > maxOwner || hasControl(s.Owner):
		return bad("owner is longer than %d bytes or holds control characters", maxOwner)
	case !isName(s.Language) || len(s.Language) > 32:
		return bad("language %q is not a language name", cut(s.Language))
	case len(s.Code) > MaxCode:
		return bad("code has %d bytes, more than %d", len(s.Code), MaxCode)
	case !utf8.Valid(s.Code):
		return bad("code is not valid UTF-8")
	case strings.IndexByte(string(s.Code), 0) >= 0:
		return bad("code holds a NUL byte")
	case len(s.Files) > MaxFiles:
		return bad("%d files, more than %d", len(s.Files), MaxFiles)
	case len(s.Runtime) > maxRuntime || hasControl(s.Runtime):
		return bad("runtime %q is not a runtime's name or digest", cut(s.Runtime))
	}
	if err := s.checkArgs(); err != nil {
		return err
	}
	if err := s.Limits.check("requested"); err != nil {
		return bad("%v", err)
	}
	for _, name := range s.Required {
		if !limitNames[name] {
			return bad("required limit %q does not exist", cut(name))
		}
	}
	if err := checkNetwork(s.Network); err != nil {
		return err
	}
	return s.checkFiles()
}

// needs names the runtime that the run asks for, or "".
func (s Spec) needs() string {
	const prefix = "sha256:"
	if s.Runtime == "" && s.Language == WASM && strings.HasPrefix(string(s.Code), prefix) {
		return strings.TrimPrefix(string(s.Code), prefix)
	}
	return strings.TrimPrefix(s.Runtime, prefix)
}

func (s Spec) checkArgs() error {
	total := 0
	for _, a := range s.Args {
		if total += len(a) + 1; !utf8.ValidString(a) || strings.IndexByte(a, 0) >= 0 {
			return bad("argument %q is not UTF-8 or holds a NUL byte", cut(a))
		}
	}
	if len(s.Args) > MaxArgs || total > MaxArgBytes {
		return bad("%d arguments of %d bytes, more than %d or of more than %d", len(s.Args), total, MaxArgs, MaxArgBytes)
	}
	return nil
}

// checkFiles checks paths, sizes and that no file lies where another needs a
// folder.
func (s Spec) checkFiles() error {
	total := int64(len(s.Stdin))
	files, folders := make(map[string]bool, len(s.Files)), make(map[string]bool)
	for _, f := range s.Files {
		switch {
		case !fs.ValidPath(f.Path) || f.Path == "." || len(f.Path) > maxPath || hasControl(f.Path) || strings.Contains(f.Path, `\`):
			return bad("file path %q is not a clean relative path of at most %d bytes", cut(f.Path), maxPath)
		case strings.Count(f.Path, "/") > maxPathDepth:
			return bad("file path %q is deeper than %d folders", cut(f.Path), maxPathDepth)
		case files[f.Path]:
			return bad("file path %q is given twice", cut(f.Path))
		}
		for part := range strings.SplitSeq(f.Path, "/") {
			if len(part) > 255 {
				return bad("file path %q has a name longer than 255 bytes", cut(f.Path))
			}
		}
		files[f.Path] = true
		for dir := path.Dir(f.Path); dir != "."; dir = path.Dir(dir) {
			folders[dir] = true
		}
		total += int64(len(f.Content))
	}
	for name := range files {
		if folders[name] {
			return bad("file path %q is also a folder", cut(name))
		}
	}
	if total > MaxInput {
		return bad("files and stdin have %d bytes, more than %d", total, MaxInput)
	}
	return nil
}

// checkLimits checks the files against the limits in force, which must be
// filled in.
func (s Spec) checkLimits() error {
	_, files := s.Module() // the program itself is no file of the program's
	for _, f := range files {
		if int64(len(f.Content)) > s.Limits.FileSize {
			return bad("file %q has %d bytes, more than the limit file_size of %d", cut(f.Path), len(f.Content), s.Limits.FileSize)
		}
	}
	if len(s.Files) > s.Limits.Files {
		return bad("%d files, more than the limit files of %d", len(s.Files), s.Limits.Files)
	}
	return nil
}

func bad(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrSpec, fmt.Sprintf(format, args...))
}

// cut shortens outside text for an error message.
func cut(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}

// isName says whether s consists of a-z, 0-9 and dashes, and of at least one.
func isName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return s != ""
}

// hasControl says whether s could confuse who sees it: it is not UTF-8, or holds
// control characters, ends of lines or what turns the direction of writing.
func hasControl(s string) bool {
	return !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool {
		return unicode.In(r, unicode.Cc, unicode.Bidi_Control, unicode.Zl, unicode.Zp)
	})
}
