//go:build !linux

package consensus

import "os"

// flush makes the file's content durable.
func flush(f *os.File) error { return f.Sync() }
