//go:build linux && long

package wasm_test

import (
	"testing"

	"github.com/agenticraft/node/sandbox/sandboxtest"
)

// Every case once more, as a user without rights: tier 2.
func TestConformanceAsNobody(t *testing.T) { sandboxtest.AsNobody(t, "^TestConformance$") }
