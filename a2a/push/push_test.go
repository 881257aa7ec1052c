package push_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/push"
	"github.com/agenticraft/node/a2a/taskstore"
	"github.com/agenticraft/node/identity"
)

// call is what a receiver got.
type call struct {
	header http.Header
	body   string
}

// receiver answers as the test says, and keeps what it got.
type receiver struct {
	*httptest.Server
	calls chan call
}

func newReceiver(t *testing.T, answer func(w http.ResponseWriter, n int)) *receiver {
	t.Helper()
	r := &receiver{calls: make(chan call, 1000)}
	var n atomic.Int32
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil || req.Method != http.MethodPost {
			t.Errorf("%s: %v", req.Method, err)
		}
		r.calls <- call{req.Header, string(body)}
		if answer != nil {
			answer(w, int(n.Add(1)))
		}
	}))
	t.Cleanup(r.Close)
	return r
}

const deadline = time.Minute

func (r *receiver) next(t *testing.T) call {
	t.Helper()
	select {
	case c := <-r.calls:
		return c
	case <-time.After(deadline):
		t.Fatal("no notification came")
		panic("unreachable")
	}
}

func openStore(t *testing.T, dir string) *taskstore.Store {
	t.Helper()
	s, err := taskstore.Open(taskstore.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func newKey(t *testing.T) *identity.Key {
	t.Helper()
	key, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func run(t *testing.T, cfg push.Config) (p *push.Pusher, stop func()) {
	t.Helper()
	cfg.First = time.Millisecond
	p, err := push.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return p, stop
}

func loopback(t *testing.T) push.Guard {
	t.Helper()
	g, err := push.ParseGuard([]string{"127.0.0.0/8", " ::1 "})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func newTask(t *testing.T, s *taskstore.Store, id string, configs ...*sdk.PushConfig) {
	t.Helper()
	if _, err := s.Create(&sdk.Task{ID: sdk.TaskID(id)}, "anna", time.Now()); err != nil {
		t.Fatal(err)
	}
	for n, cfg := range configs {
		cfg.TaskID = sdk.TaskID(id)
		if cfg.ID == "" {
			cfg.ID = fmt.Sprint(n)
		}
		if err := s.SavePush(cfg); err != nil {
			t.Fatal(err)
		}
	}
}

func tell(t *testing.T, s *taskstore.Store, id string, at time.Time, texts ...string) {
	t.Helper()
	var more taskstore.Change
	for _, text := range texts {
		more.Notices = append(more.Notices, []byte(text))
	}
	if _, err := s.Update(&sdk.Task{ID: sdk.TaskID(id)}, at, more); err != nil {
		t.Fatal(err)
	}
}

// A receiver that fails is called again until it takes a notification, then
// gets the next; each bears what proves it.
func TestNotificationsComeInOrderUntilTheyAreTaken(t *testing.T) {
	store, key := openStore(t, t.TempDir()), newKey(t)
	to := newReceiver(t, func(w http.ResponseWriter, n int) {
		if n <= 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	url := to.URL + "/hook?of=anna"
	newTask(t, store, "t1", &sdk.PushConfig{URL: url, Token: "tok-1", Auth: &sdk.PushAuthInfo{Scheme: "Bearer", Credentials: "cred-1"}})
	p, _ := run(t, push.Config{Store: store, Key: key, Guard: loopback(t)})
	tell(t, store, "t1", time.Now(), `{"a":1}`, `{"b":2}`)
	p.Wake("t1")
	var first, last a2a.Notification
	for n, want := range []string{`{"a":1}`, `{"a":1}`, `{"a":1}`, `{"a":1}`, `{"b":2}`} {
		c := to.next(t)
		if c.body != want || c.header.Get("Authorization") != "Bearer cred-1" || c.header.Get(a2a.NotificationTokenHeader) != "tok-1" ||
			c.header.Get("Content-Type") != "application/a2a+json" || c.header.Get("A2A-Version") != "1.0" {
			t.Errorf("call %d: %s %v", n, c.body, c.header)
		}
		got, err := a2a.VerifyNotification(c.header.Get(a2a.NotificationHeader), []byte(c.body), a2a.VerifyOptions{Audiences: []string{url}})
		if err != nil || got.Issuer != key.ID() || got.Task != "t1" {
			t.Fatalf("call %d: signature says %+v, %v", n, got, err)
		}
		if n == 0 {
			first = got
		} else if n < 4 && got.JTI != first.JTI {
			t.Error("the same notification has another jti when it is sent again")
		}
		last = got
	}
	if last.JTI == first.JTI {
		t.Error("two notifications have the same jti")
	}
}

// What waits when the process ends is delivered by the next one.
func TestWhatWaitsSurvivesARestart(t *testing.T) {
	dir, key := t.TempDir(), newKey(t)
	store := openStore(t, dir)
	var up atomic.Bool
	to := newReceiver(t, func(w http.ResponseWriter, _ int) {
		if !up.Load() {
			w.WriteHeader(http.StatusBadGateway)
		}
	})
	newTask(t, store, "t1", &sdk.PushConfig{URL: to.URL}, &sdk.PushConfig{URL: to.URL})
	p, stop := run(t, push.Config{Store: store, Key: key, Guard: loopback(t)})
	tell(t, store, "t1", time.Now(), "one", "two")
	p.Wake("t1")
	to.next(t)
	stop()
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	for len(to.calls) > 0 {
		<-to.calls
	}
	up.Store(true)
	store = openStore(t, dir)
	run(t, push.Config{Store: store, Key: key, Guard: loopback(t)})
	// An attempt of before the restart may have been on its way, one of each receiver's.
	got := map[string]int{}
	for got["one"] < 2 || got["two"] < 2 {
		if got[to.next(t).body]++; got["one"] > 4 || got["two"] > 2 {
			t.Fatalf("delivered after the restart: %v", got)
		}
	}
}

func TestNotificationsThatNobodyTakesAreGivenUp(t *testing.T) {
	store := openStore(t, t.TempDir())
	to := newReceiver(t, func(w http.ResponseWriter, n int) {
		if n == 1 {
			w.WriteHeader(http.StatusTeapot)
		}
	})
	newTask(t, store, "t1", &sdk.PushConfig{URL: to.URL})
	tell(t, store, "t1", time.Now().Add(-time.Hour), "old")
	tell(t, store, "t1", time.Now(), "new")
	run(t, push.Config{Store: store, Key: newKey(t), Guard: loopback(t), MaxAge: time.Minute})
	for _, want := range []string{"old", "new"} {
		if c := to.next(t); c.body != want {
			t.Errorf("got %s, want %s", c.body, want)
		}
	}
}

func TestAReceiverThatIsGoneIsForgotten(t *testing.T) {
	store := openStore(t, t.TempDir())
	gone := newReceiver(t, func(w http.ResponseWriter, _ int) { w.WriteHeader(http.StatusGone) })
	there := newReceiver(t, nil)
	newTask(t, store, "t1", &sdk.PushConfig{URL: gone.URL}, &sdk.PushConfig{URL: there.URL})
	tell(t, store, "t1", time.Now(), "one", "two")
	run(t, push.Config{Store: store, Key: newKey(t), Guard: loopback(t)})
	gone.next(t)
	there.next(t)
	there.next(t)
	for end := time.Now().Add(deadline); ; {
		all, err := store.Pushes("t1")
		if err != nil || time.Now().After(end) {
			t.Fatalf("configurations: %v, %v", all, err)
		}
		if len(all) == 1 && all[0].URL == there.URL {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// One slow receiver takes no more than its share, and holds up nobody else.
func TestASlowReceiverHoldsUpNobodyElse(t *testing.T) {
	store := openStore(t, t.TempDir())
	release := make(chan struct{})
	var now, most atomic.Int32
	slow := newReceiver(t, func(http.ResponseWriter, int) {
		if n := now.Add(1); n > most.Load() {
			most.Store(n)
		}
		<-release
		now.Add(-1)
	})
	quick := newReceiver(t, nil)
	p, _ := run(t, push.Config{Store: store, Key: newKey(t), Guard: loopback(t)})
	for n := range 20 {
		newTask(t, store, fmt.Sprint("slow", n), &sdk.PushConfig{URL: slow.URL})
		tell(t, store, fmt.Sprint("slow", n), time.Now(), "x")
		p.Wake(sdk.TaskID(fmt.Sprint("slow", n)))
	}
	newTask(t, store, "quick", &sdk.PushConfig{URL: quick.URL})
	tell(t, store, "quick", time.Now(), "y")
	p.Wake("quick")
	quick.next(t)
	close(release)
	for range 20 {
		slow.next(t)
	}
	if most.Load() > 4 {
		t.Errorf("%d calls to one host at the same time", most.Load())
	}
}

// INVARIANT: I10, no secret reaches a log: a receiver's URL may hold one, too.
func TestNoSecretOfAReceiverIsLogged(t *testing.T) {
	store := openStore(t, t.TempDir())
	var log lockedBuffer
	to := newReceiver(t, func(w http.ResponseWriter, n int) {
		if n < 3 {
			http.Error(w, "s3cret-in-answer", http.StatusInternalServerError)
		}
	})
	dead := newReceiver(t, nil)
	deadURL := dead.URL
	dead.Close()
	secret := &sdk.PushConfig{URL: to.URL + "/s3cret-path?key=s3cret-query", Token: "s3cret-token", Auth: &sdk.PushAuthInfo{Scheme: "Bearer", Credentials: "s3cret-cred"}}
	newTask(t, store, "t1", secret, &sdk.PushConfig{URL: deadURL + "/s3cret-path"}, &sdk.PushConfig{URL: "https://127.0.0.2:1/s3cret-path"}, &sdk.PushConfig{URL: "://s3cret"})
	tell(t, store, "t1", time.Now().Add(-time.Hour), "one")
	tell(t, store, "t1", time.Now(), "two")
	_, stop := run(t, push.Config{
		Store: store, Key: newKey(t), Guard: loopback(t), MaxAge: time.Minute,
		Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	for range 3 {
		to.next(t)
	}
	stop()
	if text := log.String(); strings.Contains(text, "s3cret") || !strings.Contains(text, "given up") {
		t.Errorf("the log:\n%s", text)
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
