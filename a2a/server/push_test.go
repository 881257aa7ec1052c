package server_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/client"
	"github.com/agenticraft/node/a2a/push"
	"github.com/agenticraft/node/a2a/server"
	"github.com/agenticraft/node/a2a/taskstore"
	"github.com/agenticraft/node/identity"
)

// pushing is a house that tells receivers on this machine.
func pushing(t *testing.T, path server.Path) *house {
	t.Helper()
	return openWith(t, t.TempDir(), func(cfg *server.Config) {
		cfg.Path = path
		guard, err := push.ParseGuard([]string{"127.0.0.1"})
		if err != nil {
			t.Fatal(err)
		}
		p, err := push.New(push.Config{Store: cfg.Store, Key: newKey(t), Guard: guard, First: time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		cfg.Push = p
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	})
}

// hooked collects what receivers are told.
func hooked(t *testing.T) (url string, told <-chan *http.Request) {
	t.Helper()
	c := make(chan *http.Request, 100)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		c <- r
	}))
	t.Cleanup(s.Close)
	return s.URL, c
}

func nextEvent(t *testing.T, told <-chan *http.Request) sdk.Event {
	t.Helper()
	select {
	case r := <-told:
		var out sdk.StreamResponse
		if err := json.NewDecoder(r.Body).Decode(&out); err != nil {
			t.Fatal(err)
		}
		return out.Event
	case <-time.After(time.Minute):
		t.Fatal("nothing was told")
		return nil
	}
}

// asKey is a client with an API key, whose name is also its role.
func (w *house) asKey(t *testing.T, name string) *client.Client {
	t.Helper()
	c, err := client.New(client.Config{URL: w.http.URL, HTTPClient: w.http.Client(), APIKey: name})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestPushConfigurationsAreTheirOwners(t *testing.T) {
	started := make(chan struct{}, 1)
	w := pushing(t, &fakePath{run: untilCancelled(started)})
	anna, ben := w.client(t, newKey(t)), w.client(t, newKey(t))
	id := begin(t, anna, started)
	url, told := hooked(t)
	cfg := &sdk.PushConfig{TaskID: sdk.TaskID(id), URL: url, Token: "s3cret-token", Auth: &sdk.PushAuthInfo{Scheme: "Bearer", Credentials: "s3cret-cred"}}
	made, err := anna.CreatePush(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if made.ID == "" || made.URL != url || made.Token != "" || made.Auth == nil || made.Auth.Scheme != "Bearer" || made.Auth.Credentials != "" {
		t.Errorf("Create = %+v", made)
	}
	named := *cfg
	named.ID = "a named/one"
	if got, err := anna.CreatePush(t.Context(), &named); err != nil || got.ID != named.ID {
		t.Errorf("Create with an id = %+v, %v", got, err)
	}
	all, err := anna.ListPushes(t.Context(), id)
	if err != nil || len(all) != 2 {
		t.Errorf("List = %+v, %v", all, err)
	}
	for _, c := range all {
		if text, _ := json.Marshal(c); strings.Contains(string(text), "s3cret") {
			t.Errorf("List shows %s", text)
		}
	}
	if got, err := anna.GetPush(t.Context(), id, made.ID); err != nil || got.URL != url || got.Token != "" {
		t.Errorf("Get = %+v, %v", got, err)
	}

	// Another's task is not found, whatever one does; so it is to an auditor, who
	// sees the task but not where it is told.
	for name, c := range map[string]*client.Client{"another": ben, "auditor": w.as(t, "auditor")} {
		_, err := c.CreatePush(t.Context(), cfg)
		wantCode(t, err, a2a.CodeNotFound)
		_, err = c.GetPush(t.Context(), id, made.ID)
		wantCode(t, err, a2a.CodeNotFound)
		_, err = c.ListPushes(t.Context(), id)
		wantCode(t, err, a2a.CodeNotFound)
		if err := c.DeletePush(t.Context(), id, made.ID); err == nil {
			t.Errorf("%s deletes a configuration", name)
		}
	}
	_, err = w.asKey(t, "").ListPushes(t.Context(), id)
	wantCode(t, err, a2a.CodeUnauthenticated)

	_, err = anna.GetPush(t.Context(), id, "none")
	wantCode(t, err, a2a.CodeNotFound)
	for range 2 {
		if err := anna.DeletePush(t.Context(), id, named.ID); err != nil {
			t.Error(err)
		}
	}
	if _, err := anna.Cancel(t.Context(), id, nil); err != nil {
		t.Fatal(err)
	}
	if e, ok := nextEvent(t, told).(*sdk.TaskArtifactUpdateEvent); !ok || e.Artifact.ID != a2a.ReportArtifact {
		t.Errorf("first told: %+v", e)
	}
	if e, ok := nextEvent(t, told).(*sdk.TaskStatusUpdateEvent); !ok || e.Status.State != sdk.TaskStateCanceled {
		t.Errorf("then told: %+v", e)
	}
}

func TestPushConfigurationsThatCouldNotBeActedOnAreRefused(t *testing.T) {
	w := pushing(t, &fakePath{run: hello})
	c := w.client(t, newKey(t))
	task, err := c.Send(t.Context(), request(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	url, _ := hooked(t)
	for name, change := range map[string]func(*sdk.PushConfig){
		"no URL":           func(p *sdk.PushConfig) { p.URL = "" },
		"metadata":         func(p *sdk.PushConfig) { p.URL = "http://169.254.169.254/latest" },
		"another loopback": func(p *sdk.PushConfig) { p.URL = "http://127.0.0.2/" },
		"a file":           func(p *sdk.PushConfig) { p.URL = "file:///etc/passwd" },
		"user information": func(p *sdk.PushConfig) { p.URL = "https://a:b@example.com/" },
		"header in token":  func(p *sdk.PushConfig) { p.Token = "x\r\nX-Evil: 1" },
		"endless token":    func(p *sdk.PushConfig) { p.Token = strings.Repeat("x", 5000) },
		"header in scheme": func(p *sdk.PushConfig) { p.Auth = &sdk.PushAuthInfo{Scheme: "Bearer x\r\n", Credentials: "y"} },
		"endless credentials": func(p *sdk.PushConfig) {
			p.Auth = &sdk.PushAuthInfo{Scheme: "Basic", Credentials: strings.Repeat("x", 5000)}
		},
		"no scheme":  func(p *sdk.PushConfig) { p.Auth = &sdk.PushAuthInfo{} },
		"a step":     func(p *sdk.PushConfig) { p.ID = ".." },
		"NUL in id":  func(p *sdk.PushConfig) { p.ID = "a\x00b" },
		"endless id": func(p *sdk.PushConfig) { p.ID = strings.Repeat("x", 200) },
	} {
		cfg := &sdk.PushConfig{TaskID: task.ID, URL: url}
		change(cfg)
		_, err := c.CreatePush(t.Context(), cfg)
		if e := a2a.FromWire(err); err == nil || e.Code != a2a.CodeInvalidRequest {
			t.Errorf("%s: %v", name, err)
		}
		if name == "header in scheme" || name == "NUL in id" {
			continue
		}
		req := request(t)
		req.Config = &sdk.SendMessageConfig{PushConfig: cfg}
		if _, err := w.SendMessage(t.Context(), req); err == nil || a2a.FromWire(err).Code != a2a.CodeInvalidRequest {
			t.Errorf("%s, with a message: %v", name, err)
		}
	}
	for n := range taskstore.MaxPushes + 1 {
		_, err = c.CreatePush(t.Context(), &sdk.PushConfig{TaskID: task.ID, URL: url})
		if n < taskstore.MaxPushes && err != nil {
			t.Fatal(err)
		}
	}
	wantCode(t, err, a2a.CodeTooLarge)
}

// A configuration may come with the message.
func TestPushConfigurationWithAMessage(t *testing.T) {
	var seen *sdk.SendMessageRequest
	path := &fakePath{run: hello, seen: func(in server.Inbound) { seen = in.Request }}
	w := pushing(t, path)
	c := w.client(t, newKey(t))
	url, told := hooked(t)
	req := request(t)
	req.Config = &sdk.SendMessageConfig{PushConfig: &sdk.PushConfig{URL: url}}
	task, err := c.Send(t.Context(), req, nil)
	if err != nil {
		t.Fatal(err)
	}
	nextEvent(t, told)
	if e, ok := nextEvent(t, told).(*sdk.TaskStatusUpdateEvent); !ok || e.TaskID != task.ID || e.Status.State != sdk.TaskStateCompleted {
		t.Errorf("told: %+v", e)
	}
	if all, err := c.ListPushes(t.Context(), string(task.ID)); err != nil || len(all) != 1 {
		t.Errorf("List = %+v, %v", all, err)
	}

	// INVARIANT: I10, no secret reaches a receipt, which holds what was signed.
	req = request(t)
	req.Config = &sdk.SendMessageConfig{PushConfig: &sdk.PushConfig{URL: url, Token: "s3cret"}}
	_, err = c.Send(t.Context(), req, nil)
	wantCode(t, err, a2a.CodeInvalidRequest)
	ctx := server.WithCaller(t.Context(), server.Caller{Principal: identity.Principal{Kind: identity.Service, Name: "anna"}, Door: server.DoorHTTP})
	if _, err := w.SendMessage(ctx, req); a2a.FromWire(err).Code != a2a.CodeSignatureMissing { // the path's word: this one vouches for nobody
		t.Errorf("unsigned: %v", err)
	}
	if seen.Config.PushConfig != nil || req.Config.PushConfig == nil {
		t.Error("the path saw the secret of a request that a node would sign")
	}
}

// A talk tells each thing that it says.
func TestATalkIsTold(t *testing.T) {
	path := &talker{fakePath: &fakePath{}, owner: "service:anna"}
	path.turn = func(int) server.Talk {
		return func(_ context.Context, task *sdk.Task, say func(sdk.Event)) error {
			say(&sdk.TaskArtifactUpdateEvent{TaskID: task.ID, Artifact: &sdk.Artifact{ID: "a", Parts: sdk.ContentParts{sdk.NewTextPart("x")}}})
			say(&sdk.TaskArtifactUpdateEvent{TaskID: task.ID, Artifact: &sdk.Artifact{ID: "big", Parts: sdk.ContentParts{sdk.NewTextPart(strings.Repeat("x", 300<<10))}}})
			say(sdk.NewStatusUpdateEvent(task, sdk.TaskStateInputRequired, nil))
			return nil
		}
	}
	w := pushing(t, path)
	url, told := hooked(t)
	ctx := server.WithCaller(t.Context(), server.Caller{Principal: identity.Principal{Kind: identity.Service, Name: "anna"}, Door: server.DoorHTTP})
	req := message("", "begin")
	req.Config = &sdk.SendMessageConfig{PushConfig: &sdk.PushConfig{URL: url, Token: "tok"}}
	if _, err := w.SendMessage(ctx, req); err != nil {
		t.Fatal(err)
	}
	if e, ok := nextEvent(t, told).(*sdk.TaskArtifactUpdateEvent); !ok || e.Artifact.ID != "a" {
		t.Errorf("first told: %+v", e)
	}
	if e, ok := nextEvent(t, told).(*sdk.TaskStatusUpdateEvent); !ok || e.Status.State != sdk.TaskStateInputRequired {
		t.Errorf("then told: %+v", e)
	}
}

func TestWithoutPushNotificationsThereAreNone(t *testing.T) {
	w := open(t, &fakePath{run: hello})
	c := w.client(t, newKey(t))
	task, err := c.Send(t.Context(), request(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.CreatePush(t.Context(), &sdk.PushConfig{TaskID: task.ID, URL: "https://example.com"})
	wantCode(t, err, a2a.CodePushUnsupported)
	_, err = c.ListPushes(t.Context(), string(task.ID))
	wantCode(t, err, a2a.CodePushUnsupported)
	wantCode(t, c.DeletePush(t.Context(), string(task.ID), "x"), a2a.CodePushUnsupported)
	req := request(t)
	req.Config = &sdk.SendMessageConfig{PushConfig: &sdk.PushConfig{URL: "https://example.com"}}
	_, err = c.Send(t.Context(), req, nil)
	wantCode(t, err, a2a.CodePushUnsupported)
}
