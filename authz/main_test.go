package authz_test

import (
	"os"
	"testing"

	"github.com/agenticraft/node/internal/leaktest"
)

func TestMain(m *testing.M) {
	os.Exit(leaktest.Run(m, "node/authz", "open-policy-agent", "go-oidc"))
}
