package authz_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/agenticraft/node/authz"
)

// The operators' page is checked against the policy, so that it stays true.
func TestPolicyPage(t *testing.T) {
	text, err := os.ReadFile("../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	matrix, err := os.ReadFile("testdata/matrix.txt")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(page, string(matrix)) {
		t.Error("the table of roles and actions on the page is not testdata/matrix.txt")
	}
	modules := authz.DefaultModules()
	codes := regexp.MustCompile(`reason\("([a-z_]+)"|"(limit_[a-z_]+)":`).FindAllStringSubmatch(modules["reasons.rego"], -1)
	if len(codes) < 15 {
		t.Errorf("found %d codes in reasons.rego only", len(codes))
	}
	for _, c := range codes {
		if code := c[1] + c[2]; !strings.Contains(page, "`"+code+"`") {
			t.Errorf("the page does not explain %s", code)
		}
	}
	for name := range modules {
		if !strings.Contains(page, "`"+name+"`") {
			t.Errorf("the page does not mention %s", name)
		}
	}
}
