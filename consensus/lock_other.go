//go:build !unix

package consensus

import "os"

// lock cannot hold the file here; the node's own lock file does.
func lock(*os.File) error { return nil }
