//go:build !long

package sandboxtest_test

import "time"

// How long stressors and the fuzzer of system calls may work.
const (
	stressCommand = "cd /work && stress-ng --%[1]s 2 --%[1]s-ops 20 --timeout 1 --pathological --temp-path /work 2>&1 | tail -n 6"
	trinityTime   = 5 * time.Second
)
