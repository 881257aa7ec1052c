package main

import (
	"testing"

	"github.com/agenticraft/node/identity"
)

// A name that would be taken for something else where it is looked up is none.
func TestNamesOfNewThings(t *testing.T) {
	key, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	for name, ok := range map[string]bool{
		"": true, "planner": true, "Planner-2": true, "7": true, "team:red": true, "ann@example.org": true, "a..b": true,
		"-1": false, "--json": false, ".": false, "..": false, ":x": false, "_x": false, "@x": false,
		"agent:x": false, "service:x": false, "user:x": false, "node:x": false, "did:web:example.org": false, key.ID().DID(): false, string(key.ID()): false,
	} {
		if err := checkNewName(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}
