package main

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/a2aclient"
	a2agrpc "github.com/a2aproject/a2a-go/v2/a2agrpc/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/agenticraft/node/a2a"
)

// An operator may demand signatures at every door. Then the card says so, who
// does not know the extension is told, and the rest stays as it is. A language
// tree that is added meanwhile is in the card at once, under another ETag.
func TestSignedOnly(t *testing.T) {
	t.Setenv("AGENTICRAFT_SIGNED_ONLY", "true")
	t.Setenv("AGENTICRAFT_RUNTIMES", filepath.Join(t.TempDir(), "runtimes"))
	c := startCluster(t, 1)
	w := newWire(t, c)
	res, text := c.get(http.MethodGet, a2a.CardPath, nil)
	card, _, err := a2a.VerifyCard(text)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(card.Capabilities.Extensions, func(e sdk.AgentExtension) bool { return e.URI == a2a.SignedMessageURI && e.Required }) {
		t.Errorf("extensions %+v", card.Capabilities.Extensions)
	}
	var runner struct{ Key string }
	c.json(&runner, "key", "create", "--name", "worker", "--role", "runner")
	options := []a2aclient.FactoryOption{
		a2aclient.WithJSONRPCTransport(nil), a2aclient.WithRESTTransport(nil),
		a2agrpc.WithGRPCTransport(grpc.WithTransportCredentials(insecure.NewCredentials())),
	}
	for i, at := range card.SupportedInterfaces {
		for declared, want := range map[string]string{"": a2a.CodeExtension, "https://example.org/x," + a2a.SignedMessageURI: a2a.CodeSignatureMissing} {
			cl, err := a2aclient.NewFromEndpoints(t.Context(), []*sdk.AgentInterface{at}, options[i], a2aclient.WithCallInterceptors(bearer{token: runner.Key}, extensions{uris: declared}))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := cl.SendMessage(t.Context(), w.request("result = 1")); a2a.FromWire(err).Code != want {
				t.Errorf("%s, declared %q: %v, want %s", at.ProtocolBinding, declared, err, want)
			}
			for _, err := range cl.SendStreamingMessage(t.Context(), w.request("result = 1")) {
				if a2a.FromWire(err).Code != want {
					t.Errorf("%s, stream, declared %q: %v, want %s", at.ProtocolBinding, declared, err, want)
				}
			}
			if _, err := cl.ListTasks(t.Context(), &sdk.ListTasksRequest{}); err != nil {
				t.Errorf("%s: what has no message to sign: %v", at.ProtocolBinding, err)
			}
			_ = cl.Destroy() // the connection only
		}
	}
	if r := c.run("exec", "--lang", "starlark", "-c", "result = 1", "--api-key-file", writeFile(t, runner.Key)); r.code == exitOK {
		t.Error("an API key alone ran code")
	}
	if n := w.intents(); n != 0 {
		t.Errorf("%d intents of unsigned requests", n)
	}
	if task, err := w.client.Send(t.Context(), w.sign(w.request("result = 1"), nil), nil); err != nil || task.Status.State != sdk.TaskStateCompleted {
		t.Errorf("signed: %+v, %v", task, err)
	}

	// A language tree comes and goes; each time the card has another ETag.
	etag := res.Header.Get("Etag")
	shell := func(want bool) func() bool {
		return func() bool {
			res, text := c.get(http.MethodGet, a2a.CardPath, http.Header{"If-None-Match": {etag}})
			if res.StatusCode == http.StatusNotModified {
				return false
			}
			card, signer, err := a2a.VerifyCard(text)
			if err != nil || signer != c.Nodes[0].ID {
				t.Fatalf("signed by %s, %v", signer, err)
			}
			if slices.Contains(skills(card), a2a.LanguageSkill("sh")) != want {
				return false
			}
			etag = res.Header.Get("Etag")
			return true
		}
	}
	var list struct {
		Runtimes []struct {
			Digest    string
			Languages []string
		}
	}
	c.json(&list, "runtime", "list")
	for _, rt := range list.Runtimes {
		if slices.Contains(rt.Languages, "sh") {
			if r := c.run("runtime", "rm", rt.Digest); r.code != exitOK {
				t.Fatalf("runtime rm: %s", r.stderr)
			}
			c.await("the card to lose the shell", shell(false))
		}
	}
	if r := c.run("runtime", "add", "sh"); r.code != exitOK {
		t.Fatalf("runtime add: %s", r.stderr)
	}
	c.await("the card to name the shell", shell(true))
}

// extensions declares URIs with each call.
type extensions struct {
	a2aclient.PassthroughInterceptor
	uris string
}

func (e extensions) Before(ctx context.Context, req *a2aclient.Request) (context.Context, any, error) {
	if e.uris != "" {
		req.ServiceParams.Append(sdk.SvcParamExtensions, e.uris)
	}
	return ctx, nil, nil
}

// writeFile keeps a secret in a file of the test's.
func writeFile(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}
