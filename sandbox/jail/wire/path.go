package wire

import (
	"path"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxPath bounds the path of a file in the working folder, in bytes.
const MaxPath = 1024

// ValidPath says that a path is clean and leads below the working folder.
func ValidPath(p string) bool {
	return p != "" && len(p) <= MaxPath && p != "." && path.Clean(p) == p && !path.IsAbs(p) &&
		p != ".." && !strings.HasPrefix(p, "../") && !strings.ContainsRune(p, 0)
}

// SafeName refuses names that could confuse who sees them: what is not UTF-8, control
// characters, what turns the direction of writing (CVE-2021-42574), ends of lines
// and paragraphs, and what is a separator of folders on another system.
func SafeName(name string) bool {
	return utf8.ValidString(name) && !strings.ContainsFunc(name, func(r rune) bool {
		return r == '\\' || unicode.In(r, unicode.Cc, unicode.Bidi_Control, unicode.Zl, unicode.Zp)
	})
}

// OutputPath says whether a file that a program left may be kept under this
// path.
func OutputPath(p string) bool { return ValidPath(p) && SafeName(p) }
