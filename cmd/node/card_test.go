package main

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/a2aclient"
	a2agrpc "github.com/a2aproject/a2a-go/v2/a2agrpc/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/client"
	"github.com/agenticraft/node/identity"
)

// get asks for a document of node 1.
func (c *testCluster) get(method, path string, header http.Header) (*http.Response, []byte) {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.Nodes[0].HTTP+path, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	maps.Copy(req.Header, header)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return res, text
}

// The card says what this node really offers, bears the signature of every key
// that is to sign it, and is served so that caches spare the node.
func TestCard(t *testing.T) {
	other, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "other.key")
	if err := other.Save(file); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AGENTICRAFT_CARD_KEYS", file)
	c := startCluster(t, 1)
	res, text := c.get(http.MethodGet, a2a.CardPath, nil)
	card, signer, err := a2a.VerifyCard(text)
	if err != nil || signer != c.Nodes[0].ID {
		t.Fatalf("signed by %s, %v", signer, err)
	}
	for _, id := range []identity.ID{c.Nodes[0].ID, other.ID()} {
		if _, err := a2a.VerifyCardBy(text, id); err != nil {
			t.Errorf("by %s: %v", id.DID(), err)
		}
		if cl, err := client.Discover(t.Context(), c.Nodes[0].HTTP, client.Config{Node: id}); err != nil || cl.Node() != id {
			t.Errorf("pinned to %s: %v", id.DID(), err)
		}
	}
	stranger, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a2a.VerifyCardBy(text, stranger.ID()); a2a.FromWire(err).Code != a2a.CodeSignatureInvalid {
		t.Errorf("by a stranger: %v", err)
	}
	_, keys := c.get(http.MethodGet, a2a.KeysPath, nil)
	var set struct {
		Keys []struct{ Kid, Crv, X string }
	}
	if err := json.Unmarshal(keys, &set); err != nil || len(set.Keys) != 2 || set.Keys[0].Kid != c.Nodes[0].ID.KeyURL() || set.Keys[1].Kid != other.ID().KeyURL() || set.Keys[1].X == "" {
		t.Errorf("keys %s, %v", keys, err)
	}

	etag := res.Header.Get("Etag")
	if !strings.Contains(res.Header.Get("Cache-Control"), "max-age=") || etag == "" {
		t.Errorf("headers %v", res.Header)
	}
	for _, match := range []string{etag, "W/" + etag, `"x", ` + etag, "*"} {
		if res, text := c.get(http.MethodGet, a2a.CardPath, http.Header{"If-None-Match": {match}}); res.StatusCode != http.StatusNotModified || len(text) > 0 {
			t.Errorf("If-None-Match %s: %s, %d bytes", match, res.Status, len(text))
		}
	}
	if res, _ := c.get(http.MethodGet, a2a.CardPath, http.Header{"If-None-Match": {`"x"`}}); res.StatusCode != http.StatusOK {
		t.Errorf("another ETag: %s", res.Status)
	}
	if res, text := c.get(http.MethodHead, a2a.CardPath, nil); res.StatusCode != http.StatusOK || len(text) > 0 || res.Header.Get("Etag") != etag {
		t.Errorf("HEAD: %s, %d bytes", res.Status, len(text))
	}

	var offered struct {
		Schema struct {
			Properties struct {
				Language, Sandbox struct{ Enum []string }
			}
		}
		Offers []a2a.Offer
	}
	readParams(t, card, &offered)
	if !slices.Contains(offered.Schema.Properties.Language.Enum, "starlark") || !slices.Contains(offered.Schema.Properties.Sandbox.Enum, "auto") {
		t.Errorf("schema %+v", offered.Schema)
	}
	if !slices.ContainsFunc(offered.Offers, func(o a2a.Offer) bool {
		return o.Language == "starlark" && o.Sandbox == "restricted" && o.Tier != "" && slices.Contains(o.Enforces, "memory")
	}) {
		t.Errorf("offers %+v", offered.Offers)
	}
	if got := skills(card); !slices.Contains(got, a2a.LanguageSkill("starlark")) || got[0] != a2a.SkillID {
		t.Errorf("skills %v", got)
	}
	extendedCards(t, c, card)
}

// Each caller gets a card of his own: what policy allows him, on every binding.
func extendedCards(t *testing.T, c *testCluster, public *sdk.AgentCard) {
	t.Helper()
	var viewer, runner struct{ Key string }
	c.json(&viewer, "key", "create", "--name", "looker", "--role", "viewer")
	c.json(&runner, "key", "create", "--name", "worker", "--role", "runner")
	options := []a2aclient.FactoryOption{
		a2aclient.WithJSONRPCTransport(nil), a2aclient.WithRESTTransport(nil),
		a2agrpc.WithGRPCTransport(grpc.WithTransportCredentials(insecure.NewCredentials())),
	}
	for i, at := range public.SupportedInterfaces {
		ask := func(key string) (*sdk.AgentCard, error) {
			cl, err := a2aclient.NewFromEndpoints(t.Context(), []*sdk.AgentInterface{at}, options[i], a2aclient.WithCallInterceptors(bearer{token: key}))
			if err != nil {
				t.Fatal(err)
			}
			defer cl.Destroy()
			return cl.GetExtendedAgentCard(t.Context(), &sdk.GetExtendedAgentCardRequest{})
		}
		if card, err := ask(viewer.Key); err != nil || !slices.Equal(skills(card), []string{"run-nothing"}) {
			t.Errorf("%s: a viewer's card has %v, %v", at.ProtocolBinding, skills(card), err)
		}
		card, err := ask(runner.Key)
		if err != nil {
			t.Errorf("%s: %v", at.ProtocolBinding, err)
			continue
		}
		var own struct {
			Offers []struct {
				Language string
				Limits   struct {
					Memory int64 `json:"memory_bytes"`
				}
			}
			Caller struct{ Principal, Tenant string }
		}
		readParams(t, card, &own)
		if !slices.Contains(skills(card), a2a.LanguageSkill("starlark")) || len(own.Offers) == 0 || own.Offers[0].Limits.Memory == 0 || !strings.HasPrefix(own.Caller.Principal, "service:") {
			t.Errorf("%s: a runner's card has %v, %+v", at.ProtocolBinding, skills(card), own)
		}
		if strings.Contains(own.Caller.Principal, runner.Key) {
			t.Error("the card holds the key") // I10
		}
		if _, err := ask("ac_wrong_key"); err == nil {
			t.Errorf("%s: nobody has a card", at.ProtocolBinding)
		}
	}
}

func skills(card *sdk.AgentCard) []string {
	var out []string
	if card != nil {
		for _, s := range card.Skills {
			out = append(out, s.ID)
		}
	}
	return out
}

// readParams reads the parameters of the execution extension.
func readParams(t *testing.T, card *sdk.AgentCard, into any) {
	t.Helper()
	for _, e := range card.Capabilities.Extensions {
		if e.URI == a2a.ExecutionURI {
			raw, err := json.Marshal(e.Params)
			if err == nil {
				err = json.Unmarshal(raw, into)
			}
			if err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("the card lacks the execution extension")
}
