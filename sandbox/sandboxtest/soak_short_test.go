//go:build !long

package sandboxtest_test

// How much the soak runs.
const (
	soakWarmUp = 20
	soakInARow = 500
	soakAtOnce = 120
)
