package wire

import (
	"path"
	"strings"
	"unicode/utf8"
)

// MaxPath bounds the path of a file in the working folder, in bytes.
const MaxPath = 1024

// ValidPath says that a path is clean and leads below the working folder.
func ValidPath(p string) bool {
	return p != "" && len(p) <= MaxPath && p != "." && path.Clean(p) == p && !path.IsAbs(p) &&
		p != ".." && !strings.HasPrefix(p, "../") && !strings.ContainsRune(p, 0)
}

// SafeName refuses names that could confuse who sees them.
func SafeName(name string) bool {
	if !utf8.ValidString(name) {
		return false
	}
	for _, r := range name {
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) {
			return false
		}
	}
	return true
}

// OutputPath says whether a file that a program left may be kept under this
// path.
func OutputPath(p string) bool { return ValidPath(p) && SafeName(p) }
