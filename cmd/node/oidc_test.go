package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/audit"
)

// Issue 6: a user of an OpenID provider runs code on a peer through a door that
// vouches for him, and changes nothing in the registry, whatever his groups.
// Package authz tests the tokens themselves with a real provider; this one has
// real keys and serves discovery only.
func TestUsersOfAnOpenIDProvider(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	provider := httptest.NewServer(mux)
	t.Cleanup(provider.Close)
	answer := func(path string, v any) {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(v) // the client sees what is missing
		})
	}
	answer("/.well-known/openid-configuration", map[string]any{"issuer": provider.URL, "jwks_uri": provider.URL + "/keys"})
	answer("/keys", jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k1", Algorithm: "ES256", Use: "sig"}}})
	tokenBy := func(key *ecdsa.PrivateKey, groups ...string) string {
		t.Helper()
		now := time.Now().Unix()
		text, err := json.Marshal(map[string]any{"iss": provider.URL, "aud": "agenticraft", "sub": "ann@example.org", "iat": now, "exp": now + 300, "groups": groups})
		if err != nil {
			t.Fatal(err)
		}
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, (&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", "k1"))
		if err != nil {
			t.Fatal(err)
		}
		jws, err := signer.Sign(text)
		if err != nil {
			t.Fatal(err)
		}
		out, err := jws.CompactSerialize()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	token := func(groups ...string) string { return tokenBy(key, groups...) }
	forger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("AGENTICRAFT_OIDC_ISSUER", provider.URL)
	t.Setenv("AGENTICRAFT_OIDC_AUDIENCE", "agenticraft")
	t.Setenv("AGENTICRAFT_OIDC_ROLES", "developers=runner,staff=admin")
	c := startCluster(t, 3)
	exec := func(bearer string) (a2a.Report, result) {
		r := c.runWith([]string{"AGENTICRAFT_API_KEY=" + bearer, "AGENTICRAFT_SERVER=" + c.Nodes[0].HTTP}, "",
			"exec", "--json", "--lang", "starlark", "--on", string(c.Nodes[2].ID), "-c", "result = 6 * 7")
		var rep a2a.Report
		if err := json.Unmarshal([]byte(r.stdout), &rep); err != nil {
			t.Errorf("exec printed %s%s", r.stdout, r.stderr)
		}
		return rep, r
	}
	rep, r := exec(token("developers"))
	if rep.Status != a2a.Succeeded || string(rep.Result) != "42" || rep.Node != c.Nodes[2].ID {
		t.Fatalf("a user runs on a peer: exit %d, %+v\n%s", r.code, rep, c.logs())
	}
	var page struct {
		Entries []audit.Indexed `json:"entries"`
	}
	c.json(&page, "audit", "list", "--task", rep.Task, "--kind", "intent")
	if len(page.Entries) != 1 || len(page.Entries[0].Entry.Actor) != len("user:u")+32 {
		t.Errorf("the log says %+v", page.Entries)
	}
	if rep, r := exec(token("visitors")); r.code != exitDenied || rep.Error.Code != "role_missing" {
		t.Errorf("a user without a role: exit %d, %+v", r.code, rep.Error)
	}
	if rep, r := exec(token("admin", "runner", "Developers", "developers ")); r.code != exitDenied || rep.Error.Code != "role_missing" {
		t.Errorf("a user of groups that are called like roles: exit %d, %+v", r.code, rep.Error)
	}
	if _, r := exec(tokenBy(forger, "staff")); r.code != exitDenied {
		t.Errorf("groups that the provider did not sign: exit %d, %s", r.code, r.stdout)
	}
	if _, r := exec(token("developers") + "x"); r.code != exitDenied {
		t.Errorf("a broken token: exit %d, %s", r.code, r.stdout)
	}
	staff := []string{"AGENTICRAFT_API_KEY=" + token("staff"), "AGENTICRAFT_SERVER=" + c.Nodes[0].HTTP}
	if r := c.runWith(staff, "", "key", "list"); r.code != exitOK {
		t.Errorf("a user reads with the role of his group: exit %d, %s", r.code, r.stderr)
	}
	for _, change := range [][]string{
		{"tenant", "create", "mine"}, {"key", "create", "--name", "mine", "--role", "admin"}, {"role", "grant", "first-agent", "admin"}, {"policy", "apply", "--rollback"},
	} {
		if r := c.runWith(staff, "", change...); r.code == exitOK {
			t.Errorf("a user whom no registry knows changed the registry: %v", change)
		} else if change[0] != "policy" && (r.code != exitDenied || !strings.Contains(r.stderr, "agent add")) {
			t.Errorf("%v: exit %d, %s; want what to do instead", change, r.code, r.stderr)
		}
	}
	c.await("the refusals to be in the log", func() bool {
		c.json(&page, "audit", "list", "--kind", "denial,gap", "--limit", "40")
		refused, without, forged := 0, 0, 0
		for _, e := range page.Entries {
			var gap audit.GapBody
			d, err := e.Entry.Denial()
			switch reasons := e.Entry.Decision; {
			case err == nil && d.Code == "user":
				refused++
			case err == nil && reasons != nil && slices.Contains(reasons.Reasons, "role_missing") && strings.HasPrefix(e.Entry.Actor, "user:u"):
				without++
			case e.Entry.Kind == audit.KindGap && json.Unmarshal(e.Entry.Body, &gap) == nil && gap.Code == a2a.CodeUnauthenticated:
				forged += gap.Count
			}
		}
		return refused >= 3 && without == 2 && forged >= 2
	})
	if r := c.runWith(nil, "", "exec", "--lang", "starlark", "--agent-key", c.data+"/"+agentKeyFile, "-c", "result = 1"); r.code != exitOK {
		t.Errorf("agents' own tokens beside users': exit %d, %s", r.code, r.stderr)
	}
}
