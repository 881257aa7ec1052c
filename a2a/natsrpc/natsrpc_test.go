package natsrpc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/natsrpc"
	"github.com/agenticraft/node/a2a/natsrpc/natstest"
)

const prefix = "test"

// answer has a handler answer on the subject of A2A until the test ends.
func answer(t *testing.T, s *natstest.Server, h http.HandlerFunc, change func(*natsrpc.Responder)) {
	t.Helper()
	r := &natsrpc.Responder{Conn: s.Connect()}
	if change != nil {
		change(r)
	}
	for _, act := range []string{natsrpc.ActA2A, natsrpc.ActCard, natsrpc.ActReceipt} {
		if _, err := r.Conn.Subscribe(natsrpc.Subject(prefix, act), func(m *nats.Msg) {
			go r.Answer(context.Background(), natsrpc.Request{Reply: m.Reply, Header: m.Header, Data: m.Data}, h, http.MethodPost, "/"+act)
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Conn.Flush(); err != nil {
		t.Fatal(err)
	}
}

func post(t *testing.T, tr *natsrpc.Transport, body, accept string) (*http.Response, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, natsrpc.URL(""), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", accept)
	r.Header.Set("A2A-Version", "1.0")
	r.Header.Set("Authorization", "Bearer x")
	r.Header.Set("Cookie", "secret") // goes no further
	return (&http.Client{Transport: tr}).Do(r)
}

func text(t *testing.T, res *http.Response) (string, error) {
	t.Helper()
	defer func() {
		if err := res.Body.Close(); err != nil {
			t.Error(err)
		}
	}()
	b, err := io.ReadAll(res.Body)
	return string(b), err
}

func TestAnAnswer(t *testing.T) {
	s := natstest.Start(t, nil)
	answer(t, s, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("A2A-Extensions", "urn:x")
		fmt.Fprintf(w, "%s %s %s %s %q %s", r.Method, r.URL.Path, r.Header.Get("A2A-Version"), r.Header.Get("Authorization"), r.Header.Get("Cookie"), body)
	}, nil)
	res, err := post(t, &natsrpc.Transport{Conn: s.Connect(), Subject: prefix}, "hello", "application/json")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := text(t, res); err != nil || got != `POST /a2a 1.0 Bearer x "" hello` || res.Header.Get("A2A-Extensions") != "urn:x" {
		t.Errorf("answer %q, %v, %v", got, res.Header, err)
	}
}

// What does not fit into one message comes whole all the same.
func TestALongAnswerAndLongEvents(t *testing.T) {
	s := natstest.Start(t, func(o *server.Options) { o.MaxPayload = 16 << 10 })
	long := strings.Repeat("0123456789", 20_000)
	answer(t, s, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Last-Event-Id") == "" && r.URL.Path == "/"+natsrpc.ActA2A {
			w.Header().Set("Content-Type", "text/event-stream")
			for i := range 3 {
				// In pieces that respect nothing.
				for part := range strings.SplitSeq(fmt.Sprintf("id: %d\ndata: \"%s\"\n\n: comment\n\n", i+1, long), "5") {
					io.WriteString(w, part)
					io.WriteString(w, "5")
				}
				io.WriteString(w, "\n\n")
			}
			return
		}
		io.WriteString(w, long)
	}, nil)
	tr := &natsrpc.Transport{Conn: s.Connect(), Subject: prefix}
	res, err := post(t, tr, "{}", "text/event-stream")
	if err != nil {
		t.Fatal(err)
	}
	got, err := text(t, res)
	if err != nil || strings.Count(got, long) != 3 || !strings.Contains(got, "id: 3\ndata: ") || strings.Contains(got, "comment") {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://any"+a2a.CardPath, nil)
	if err != nil {
		t.Fatal(err)
	}
	if res, err = (&http.Client{Transport: tr}).Do(r); err != nil {
		t.Fatal(err)
	}
	if got, err := text(t, res); err != nil || got != long {
		t.Errorf("card: %d bytes, %v", len(got), err)
	}
	if _, err := post(t, tr, strings.Repeat("x", 20<<10), ""); a2a.FromWire(err).Code != a2a.CodeTooLarge {
		t.Errorf("a request that the server does not take: %v", err)
	}
	tr.MaxReply = 1 << 10
	if _, err := post(t, tr, "{}", ""); a2a.FromWire(err).Code != a2a.CodeTooLarge {
		t.Errorf("an event beyond the cap: %v", err)
	}
}

// Who asks with nothing but a NATS client gets the answer in one message.
func TestPlainRequesters(t *testing.T) {
	s := natstest.Start(t, nil)
	answer(t, s, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" {
			w.WriteHeader(http.StatusUnauthorized)
			io.WriteString(w, `{"detail":"who\nare you"}`)
			return
		}
		io.WriteString(w, "fine")
	}, func(r *natsrpc.Responder) { r.KeepAlive = time.Millisecond })
	conn := s.Connect()
	m, err := conn.Request(natsrpc.Subject(prefix, natsrpc.ActA2A), []byte("{}"), time.Minute)
	if err != nil || m.Header.Get("Nats-Service-Error-Code") != "401" || m.Header.Get("Nats-Service-Error") != "who are you" {
		t.Errorf("refusal: %+v, %v", m, err)
	}
	ask := &nats.Msg{Subject: natsrpc.Subject(prefix, natsrpc.ActA2A), Header: nats.Header{"authorization": {"x"}}}
	if m, err = conn.RequestMsg(ask, time.Minute); err != nil || string(m.Data) != "fine" || m.Header.Get("Nats-Service-Error-Code") != "" {
		t.Errorf("answer: %+v, %v", m, err)
	}
	ask.Header.Set("Traceparent", strings.Repeat("x", 70<<10))
	if m, err = conn.RequestMsg(ask, time.Minute); err != nil || m.Header.Get("Nats-Service-Error-Code") != "400" {
		t.Errorf("large headers: %+v, %v", m, err)
	}
}

// Every way in which a reply can end early is an error, soon, never a hang and
// never half an answer.
func TestRepliesThatEndEarly(t *testing.T) {
	s := natstest.Start(t, nil)
	gone := make(chan struct{})
	answer(t, s, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, "id: 1\ndata: {}\n\n")
		<-r.Context().Done()
		io.WriteString(w, "id: 2\ndata: {\"too\":\"late\"}\n\n")
		close(gone)
	}, func(r *natsrpc.Responder) { r.MaxTime, r.KeepAlive = time.Second, 20*time.Millisecond })
	res, err := post(t, &natsrpc.Transport{Conn: s.Connect(), Subject: prefix}, "{}", "text/event-stream")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := text(t, res); err == nil || got != "id: 1\ndata: {}\n\n" {
		t.Errorf("cut: %q, %v", got, err)
	}
	<-gone

	nobody := &natsrpc.Transport{Conn: s.Connect(), Subject: "nobody"}
	if _, err := post(t, nobody, "{}", ""); a2a.FromWire(errors.Unwrap(err)).Code != a2a.CodeUnavailable {
		t.Errorf("nobody listens: %v", err)
	}
	silent := s.Connect()
	asked := make(chan struct{}, 2)
	if _, err := silent.Subscribe("silent.a2a", func(*nats.Msg) { asked <- struct{}{} }); err != nil {
		t.Fatal(err)
	}
	if err := silent.Flush(); err != nil {
		t.Fatal(err)
	}
	tr := &natsrpc.Transport{Conn: s.Connect(), Subject: "silent", Silence: 50 * time.Millisecond}
	if _, err := post(t, tr, "{}", ""); err == nil || !strings.Contains(err.Error(), "no sign of life") {
		t.Errorf("silence: %v", err)
	}
	<-asked
	tr.Silence = time.Hour
	broken := make(chan error)
	go func() {
		_, err := post(t, tr, "{}", "")
		broken <- err
	}()
	<-asked
	s.Restart()
	if err := <-broken; err == nil || !strings.Contains(err.Error(), "broke") && !strings.Contains(err.Error(), "no connection") {
		t.Errorf("the server restarted: %v", err)
	}
}

// Signs of life keep a slow answer awaited.
func TestASlowAnswer(t *testing.T) {
	s := natstest.Start(t, nil)
	enough := make(chan struct{})
	answer(t, s, func(w http.ResponseWriter, _ *http.Request) {
		<-enough
		io.WriteString(w, "at last")
	}, func(r *natsrpc.Responder) { r.KeepAlive = 10 * time.Millisecond })
	const silence = 2 * time.Second
	time.AfterFunc(silence+100*time.Millisecond, func() { close(enough) })
	// The margin between sign and silence is wide: this machine may be slow.
	res, err := post(t, &natsrpc.Transport{Conn: s.Connect(), Subject: prefix, Silence: silence}, "{}", "")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := text(t, res); err != nil || got != "at last" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestSubjects(t *testing.T) {
	for _, bad := range []string{"", ".", "a.", ".a", "a..b", "a b", "a.*", "a.>", "$SYS", "_INBOX", "ä", strings.Repeat("a", 65)} {
		if natsrpc.CheckSubject(bad) == nil {
			t.Errorf("subject %q is accepted", bad)
		}
	}
	for _, good := range []string{"agenticraft", "acme.prod-1", "A_1"} {
		if err := natsrpc.CheckSubject(good); err != nil {
			t.Error(err)
		}
	}
	for subject, want := range map[string]bool{
		"": false, "$JS.API.STREAM.DELETE.X": false, "test": false, "test.queue": false, "test.a2a": false,
		"_INBOX.abc.1": true, "testing.a": true, "my.inbox": true, strings.Repeat("x", 1000): false,
	} {
		if got := natsrpc.MayReply(prefix, subject); got != want {
			t.Errorf("MayReply(%.40q) = %v", subject, got)
		}
	}
}
