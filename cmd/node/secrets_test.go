package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What callers send and programs say is in no log of a node and in no entry of
// the audit log, and no credential is anywhere but in its own file.
//
// INVARIANT: I10, no secret reaches a log, an error text, a receipt or a jail
// that policy did not grant it to.
func TestSecretsStayWhereTheyBelong(t *testing.T) {
	c := startCluster(t, 3)
	const inCode, inStdin, inResult = "planted-in-code-7f3a", "planted-in-stdin-7f3a", "planted-in-result"
	receipt := filepath.Join(c.dir, "receipt.json")
	r := c.runWith(nil, inStdin, "exec", "--lang", "starlark", "--on", string(c.Nodes[1].ID), "--receipt", receipt,
		"--stdin", "-c", "# "+inCode+"\nprint(stdin)\nresult = \"planted\" + \"-in-result\"")
	if r.code != exitOK || !strings.Contains(r.stdout, inResult) {
		t.Fatalf("exit %d: %s%s", r.code, r.stdout, r.stderr)
	}
	c.run("exec", "--lang", "starlark", "-c", "fail(\""+inCode+"\")")
	c.run("exec", "--lang", "starlark", "--network", "allow="+inCode+":1", "-c", "x = 1")
	wrong := filepath.Join(c.dir, "wrong.key")
	mistyped := c.APIKey[:len(c.APIKey)-1] + "!"
	if err := os.WriteFile(wrong, []byte(mistyped), 0o600); err != nil {
		t.Fatal(err)
	}
	refused := c.run("status", "--api-key-file", wrong)
	if refused.code != exitDenied {
		t.Errorf("a mistyped key: exit %d", refused.code)
	}
	entries := c.run("audit", "export", "--format", "jsonl").stdout
	secret := c.APIKey[strings.LastIndex(c.APIKey, "_")+1:]
	c.stop()

	hidden := func(where string, text []byte, secrets ...string) {
		t.Helper()
		for _, s := range secrets {
			if bytes.Contains(text, []byte(s)) {
				t.Errorf("%s holds %q", where, s)
			}
		}
	}
	hidden("the audit log", []byte(entries), inCode, inStdin, inResult, secret)
	hidden("an error", []byte(refused.stdout+refused.stderr), secret)
	for _, n := range c.Nodes {
		files, err := filepath.Glob(filepath.Join(n.Data, "raft", "*"))
		if err != nil || len(files) < 2 {
			t.Fatalf("raft's folder holds %v, %v", files, err)
		}
		for _, name := range append(files, filepath.Join(n.Data, "node.log"), filepath.Join(n.Data, "audit.db"), filepath.Join(n.Data, "index.db")) {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			hidden(name, text, inCode, inStdin, inResult, secret)
		}
	}
	text, err := os.ReadFile(receipt)
	if err != nil {
		t.Fatal(err)
	}
	hidden("the receipt", text, inResult, secret) // the request is in it, as it was signed
}
