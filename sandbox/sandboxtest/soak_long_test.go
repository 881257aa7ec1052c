//go:build long

package sandboxtest_test

// How much the soak runs.
const (
	soakWarmUp = 200
	soakInARow = 10_000
	soakAtOnce = 1000
)
