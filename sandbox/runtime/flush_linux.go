package runtime

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// flush makes everything in dir durable. One flush of the file system is far
// cheaper than one for each of a thousand files.
func flush(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(d.Fd())), d.Close())
}
