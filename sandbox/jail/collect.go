package jail

import "unicode/utf8"

// CollectLimits bounds what [Jail.Collect] takes; all must be set.
type CollectLimits struct {
	Files int   // regular files taken
	Bytes int64 // of content, together
	Depth int   // of folders
}

// OutputPath says whether a file that a program left may be kept under this
// path: clean, below the working folder, and fit to be shown.
func OutputPath(path string) bool { return validPath(path) && safeName(path) }

// safeName refuses names that could confuse who sees them.
func safeName(name string) bool {
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
