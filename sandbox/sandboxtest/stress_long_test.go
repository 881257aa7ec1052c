//go:build long

package sandboxtest_test

import (
	"time"

	"github.com/agenticraft/node/sandbox/sandboxtest"
)

func init() { sandboxtest.Long = true } //nolint:gochecknoinits // the build tag is the setting

// How long stressors and the fuzzer of system calls may work.
const (
	stressCommand = "cd /work && stress-ng --%[1]s 4 --timeout 2 --pathological --temp-path /work 2>&1 | tail -n 6"
	trinityTime   = 5 * time.Minute
)
