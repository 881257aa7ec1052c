//go:build unix

package audit

import (
	"fmt"
	"os"
	"syscall"
)

// fileID names a file by what a copy of it does not have.
func fileID(name string) (string, error) {
	info, err := os.Stat(name)
	if err != nil {
		return "", err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", nil
	}
	return fmt.Sprintf("%d:%d", stat.Dev, stat.Ino), nil
}
