package client_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/client"
	"github.com/agenticraft/node/identity"
)

const cluster = "test"

func newKey(t testing.TB) *identity.Key {
	t.Helper()
	key, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// serve answers every request with what answer writes.
func serve(t *testing.T, answer http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(answer)
	t.Cleanup(s.Close)
	return s.URL
}

func dial(t *testing.T, cfg client.Config) *client.Client {
	t.Helper()
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func request(t *testing.T) *sdk.SendMessageRequest {
	t.Helper()
	req, err := a2a.NewRequest(a2a.Execution{Language: "python", Code: "1"})
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func asError(t *testing.T, err error) *a2a.Error {
	t.Helper()
	e, ok := errors.AsType[*a2a.Error](err)
	if !ok {
		t.Fatalf("error %v has no code", err)
	}
	return e
}

func TestErrorsOfDoorsHaveCodes(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		want   a2a.Error
	}{
		{401, ``, a2a.Error{Code: a2a.CodeUnauthenticated, Message: "the server answered 401 Unauthorized"}},
		{403, `{"title":"denied","detail":"policy says no","code":"denied","hint":"ask"}`, a2a.Error{Code: a2a.CodeDenied, Message: "policy says no", Hint: "ask"}},
		{404, `<html>`, a2a.Error{Code: a2a.CodeNotFound, Message: "the server answered 404 Not Found"}},
		{413, ``, a2a.Error{Code: a2a.CodeTooLarge, Message: "the server answered 413 Request Entity Too Large"}},
		{429, ``, a2a.Error{Code: a2a.CodeBusy, Message: "the server answered 429 Too Many Requests", RetryAfter: 2 * time.Second}},
		{503, `{"title":"no quorum"}`, a2a.Error{Code: a2a.CodeUnavailable, Message: "no quorum", RetryAfter: 2 * time.Second}},
		{400, `{`, a2a.Error{Code: a2a.CodeInvalidRequest, Message: "the server answered 400 Bad Request"}},
		{500, ``, a2a.Error{Code: a2a.CodeInternal, Message: "the server answered 500 Internal Server Error"}},
	} {
		u := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if c.want.RetryAfter > 0 {
				w.Header().Set("Retry-After", "2")
			}
			w.WriteHeader(c.status)
			io.WriteString(w, c.body)
		})
		_, err := dial(t, client.Config{URL: u}).Send(t.Context(), request(t), nil)
		if got := *asError(t, err); got != c.want {
			t.Errorf("status %d: error = %+v, want %+v", c.status, got, c.want)
		}
	}
}

func TestErrorsOfTheBindingKeepCodeHintAndRetry(t *testing.T) {
	want := a2a.Error{Code: a2a.CodeBusy, Message: "every slot is taken", Hint: "come back", RetryAfter: 1500 * time.Millisecond}
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		raw, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": "1", "error": map[string]any{"code": -32000, "message": want.Message, "data": []any{want.Info()}}})
		if err != nil {
			t.Error(err)
		}
		w.Write(raw)
	})
	_, err := dial(t, client.Config{URL: u}).Send(t.Context(), request(t), nil)
	if got := *asError(t, err); got != want {
		t.Errorf("error = %+v, want %+v", got, want)
	}
}

func TestHostileServers(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"endless": func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, `{"jsonrpc":"2.0","id":"1","result":{"task":{"id":"`)
			for range 100 {
				io.WriteString(w, strings.Repeat("x", 1<<10))
			}
		},
		"garbage": func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "garbage") },
		"nothing": func(w http.ResponseWriter, r *http.Request) {},
		"a message": func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, `{"jsonrpc":"2.0","id":"1","result":{"message":{"messageId":"1","role":"ROLE_AGENT","parts":[]}}}`)
		},
		"hung up": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"huge code": func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, `{"jsonrpc":"2.0","id":"1","error":{"code":1e300,"message":"x"}}`)
		},
		"wrong shape": func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, `{"jsonrpc":"2.0","id":"1","result":[1]}`)
		},
	} {
		c := dial(t, client.Config{URL: serve(t, answer), MaxReply: 4 << 10, Resume: -1})
		if task, err := c.Send(t.Context(), request(t), nil); err == nil {
			t.Errorf("%s: Send = %+v", name, task)
		} else {
			asError(t, err)
		}
		if _, _, err := c.Card(t.Context()); err == nil {
			t.Errorf("%s: a card was read", name)
		}
		for _, err := range c.Stream(t.Context(), request(t), nil) {
			if err != nil {
				asError(t, err)
			}
		}
	}
}

// A bearer token is good for anything its bearer may do: it is sent only where
// no signature serves.
func TestWhatIsSentAsProof(t *testing.T) {
	var bearer string
	var signed bool
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		bearer = r.Header.Get("Authorization")
		raw, _ := io.ReadAll(r.Body)
		signed = strings.Contains(string(raw), `"signatures"`)
		io.WriteString(w, `{"jsonrpc":"2.0","id":"1","result":{"task":{"id":"1","contextId":"1","status":{"state":"TASK_STATE_COMPLETED"}},"id":"1"}}`)
	})
	key := newKey(t)
	c := dial(t, client.Config{URL: u, Key: key, Audience: a2a.Audience(cluster)})
	if _, err := c.Send(t.Context(), request(t), nil); err != nil || bearer != "" || !signed {
		t.Errorf("Send: bearer %q, signed %t, %v", bearer, signed, err)
	}
	if _, err := c.Get(t.Context(), "1", nil); err != nil {
		t.Fatal(err)
	}
	if token, err := a2a.VerifyToken(strings.TrimPrefix(bearer, "Bearer "), a2a.VerifyOptions{Audiences: []string{a2a.Audience(cluster)}}); err != nil || token.Issuer != key.ID() {
		t.Errorf("Get: token of %s, %v", token.Issuer, err)
	}
	c = dial(t, client.Config{URL: u, APIKey: "ac_1_2"})
	if _, err := c.Send(t.Context(), request(t), nil); err != nil || bearer != "Bearer ac_1_2" || signed {
		t.Errorf("with an API key: bearer %q, signed %t, %v", bearer, signed, err)
	}
	if _, err := c.Signed(request(t)); err == nil {
		t.Error("a client without a key signed")
	}
	if _, err := c.SendRaw(t.Context(), []byte(`{"message":{"messageId":"1","role":"ROLE_USER","parts":[{"text":"x"}]}}`), nil); asError(t, err).Code != a2a.CodeSignatureMissing {
		t.Errorf("SendRaw of an unsigned request: %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	for name, cfg := range map[string]client.Config{
		"no URL":      {},
		"not http":    {URL: "ftp://x/"},
		"no audience": {URL: "http://x/", Key: newKey(t)},
	} {
		if _, err := client.New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	_, err := dial(t, client.Config{URL: "http://127.0.0.1:1/"}).Send(t.Context(), request(t), nil)
	if asError(t, err).Code != a2a.CodeUnavailable {
		t.Errorf("nobody listens: %v", err)
	}
}

// VER-CLIENT-001 (A2A 3.6.1): each request names its version.
func TestEveryRequestNamesItsVersion(t *testing.T) {
	versions := map[string]string{} // by method
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		var call struct{ Method string }
		if err := json.NewDecoder(r.Body).Decode(&call); err != nil {
			t.Error(err)
		}
		versions[call.Method] = r.Header.Get("A2A-Version")
		w.WriteHeader(http.StatusForbidden) // not to be tried again
	})
	c := dial(t, client.Config{URL: u, Key: newKey(t), Audience: a2a.Audience(cluster), Resume: -1})
	ctx := t.Context()
	c.Send(ctx, request(t), nil)
	for range c.Stream(ctx, request(t), nil) {
	}
	c.Get(ctx, "1", nil)
	c.List(ctx, &sdk.ListTasksRequest{}, nil)
	c.Cancel(ctx, "1", nil)
	for range c.SubscribeAfter(ctx, "1", nil, nil) {
	}
	if len(versions) != 6 {
		t.Errorf("methods called: %v", versions)
	}
	for method, version := range versions {
		if version != "1.0" {
			t.Errorf("%s: version %q", method, version)
		}
	}
}
