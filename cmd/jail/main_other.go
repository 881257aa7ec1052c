//go:build !linux

// Command jail is the helper that makes jails. It needs Linux.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintf(os.Stderr, "jail: this helper needs Linux (it knows %d workers there)\n", len(workers))
	os.Exit(2)
}
