package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/a2aclient"
	"github.com/a2aproject/a2a-go/v2/a2aclient/agentcard"
	a2agrpc "github.com/a2aproject/a2a-go/v2/a2agrpc/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/agenticraft/node/a2a"
)

// A stranger's agent, written with an official SDK, works with a node at first
// try: it finds the card and needs an API key, nothing else.
func TestOfficialClients(t *testing.T) {
	c := startCluster(t, 1)
	t.Run("Go", func(t *testing.T) { officialGo(t, c) })
	t.Run("JavaScript", func(t *testing.T) { officialJavaScript(t, c) })
}

func officialGo(t *testing.T, c *testCluster) {
	card, err := agentcard.DefaultResolver.Resolve(t.Context(), c.Nodes[0].HTTP)
	if err != nil {
		t.Fatal(err)
	}
	options := map[sdk.TransportProtocol]a2aclient.FactoryOption{
		sdk.TransportProtocolJSONRPC:  a2aclient.WithJSONRPCTransport(nil),
		sdk.TransportProtocolHTTPJSON: a2aclient.WithRESTTransport(nil),
		sdk.TransportProtocolGRPC:     a2agrpc.WithGRPCTransport(grpc.WithTransportCredentials(insecure.NewCredentials())),
	}
	if len(card.SupportedInterfaces) != len(options) || card.SupportedInterfaces[0].ProtocolBinding != sdk.TransportProtocolJSONRPC {
		t.Fatalf("interfaces = %+v", card.SupportedInterfaces)
	}
	for _, at := range card.SupportedInterfaces {
		t.Run(string(at.ProtocolBinding), func(t *testing.T) {
			cl, err := a2aclient.NewFromEndpoints(t.Context(), []*sdk.AgentInterface{at}, options[at.ProtocolBinding], a2aclient.WithCallInterceptors(bearer{token: c.APIKey}))
			if err != nil {
				t.Fatal(err)
			}
			defer cl.Destroy()
			message := func(code string) *sdk.SendMessageRequest {
				return &sdk.SendMessageRequest{Message: sdk.NewMessage(sdk.MessageRoleUser, sdk.NewTextPart("```starlark\n"+code+"\n```"))}
			}
			sent, err := cl.SendMessage(t.Context(), message("result = 6 * 7"))
			if err != nil {
				t.Fatal(err)
			}
			task := sent.(*sdk.Task)
			if report, err := a2a.ReportOf(task); err != nil || string(report.Result) != "42" || report.Outcome == nil {
				t.Errorf("report = %+v, %v", report, err)
			}
			var last sdk.Event
			for e, err := range cl.SendStreamingMessage(t.Context(), message("result = 1")) {
				if err != nil {
					t.Fatal(err)
				}
				last = e
			}
			if e, ok := last.(*sdk.TaskStatusUpdateEvent); !ok || e.Status.State != sdk.TaskStateCompleted {
				t.Errorf("last event = %+v", last)
			}
			if got, err := cl.GetTask(t.Context(), &sdk.GetTaskRequest{ID: task.ID}); err != nil || got.ID != task.ID {
				t.Errorf("get = %+v, %v", got, err)
			}
			if _, err := cl.CancelTask(t.Context(), &sdk.CancelTaskRequest{ID: task.ID}); a2a.FromWire(err) == nil || a2a.FromWire(err).Code != a2a.CodeNotCancelable {
				t.Errorf("cancel = %v", err)
			}
			wrong, err := a2aclient.NewFromEndpoints(t.Context(), []*sdk.AgentInterface{at}, options[at.ProtocolBinding], a2aclient.WithCallInterceptors(bearer{token: "ac_wrong_key"}))
			if err != nil {
				t.Fatal(err)
			}
			defer wrong.Destroy()
			if _, err := wrong.SendMessage(t.Context(), message("result = 1")); err == nil {
				t.Error("a wrong API key runs code")
			} else if e := a2a.FromWire(err); e.Code != a2a.CodeUnauthenticated && at.ProtocolBinding != sdk.TransportProtocolJSONRPC {
				t.Errorf("wrong key: %+v", e) // the SDK reads no body of a JSON-RPC answer of 401
			}
		})
	}
}

// javaScriptSDK is what is tested, with what its gRPC binding needs.
var javaScriptSDK = []string{"@a2a-js/sdk@1.3.0", "@grpc/grpc-js@1.14.7", "@bufbuild/protobuf@2.17.0"}

func officialJavaScript(t *testing.T, c *testCluster) {
	skip := t.Skipf
	if os.Getenv("CI") != "" {
		skip = t.Fatalf
	}
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			skip("the official JavaScript SDK needs %s: %v", tool, err)
		}
	}
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	install := exec.CommandContext(ctx, "npm", append([]string{"install", "--silent", "--no-audit", "--no-fund", "--prefix", dir}, javaScriptSDK...)...)
	if out, err := install.CombinedOutput(); err != nil {
		skip("npm cannot install %s: %v\n%s", javaScriptSDK, err, out)
	}
	script, err := os.ReadFile("testdata/interop.mjs")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "interop.mjs")
	if err := os.WriteFile(file, script, 0o600); err != nil {
		t.Fatal(err)
	}
	public, err := c.Nodes[0].ID.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	jwk, err := json.Marshal(map[string]string{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "x": base64.RawURLEncoding.EncodeToString(public)})
	if err != nil {
		t.Fatal(err)
	}
	run := exec.CommandContext(ctx, "node", file)
	run.Env = append(os.Environ(), "BASE="+c.Nodes[0].HTTP, "KEY="+c.APIKey, "JWK="+string(jwk), "KID="+c.Nodes[0].ID.DID())
	out, err := run.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"card verified", "JSONRPC send", "JSONRPC stream", "JSONRPC errors", "HTTP+JSON send", "HTTP+JSON stream", "HTTP+JSON errors", "GRPC send", "GRPC stream", "GRPC errors"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("not seen: %s\n%s", want, out)
		}
	}
}
