package natsrpc

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
)

func message(seq, kind string, data string) *nats.Msg {
	m := &nats.Msg{Header: nats.Header{}, Data: []byte(data)}
	m.Header.Set(HeaderSeq, seq)
	m.Header.Set(HeaderFrame, kind)
	return m
}

// A reply with a hole, a stranger's message or too much of anything is never
// taken for an answer.
func TestMalformedReplies(t *testing.T) {
	for name, messages := range map[string][]*nats.Msg{
		"no number":         {message("", "answer", "x")},
		"not a number":      {message("1.0", "answer", "x")},
		"not the first":     {message("2", "answer", "x")},
		"a hole":            {message("1", "more", "x"), message("3", "answer", "y")},
		"twice":             {message("1", "more", "x"), message("1", "more", "x")},
		"unknown kind":      {message("1", "other", "x")},
		"no kind":           {message("1", "", "x")},
		"a sign with data":  {message("1", "alive", "x")},
		"end within a part": {message("1", "more", "x"), message("2", "end", "")},
		"too large":         {message("1", "more", strings.Repeat("x", 60)), message("2", "answer", strings.Repeat("x", 60))},
	} {
		a := assembler{max: 100}
		var err error
		for _, m := range messages {
			var f frame
			var whole bool
			if f, whole, err = a.add(m); err == nil && whole {
				t.Errorf("%s: gave %+v", name, f)
			}
		}
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// Whatever is cut comes together again; signs of life may come in between.
func TestPiecesComeTogether(t *testing.T) {
	data := []byte(strings.Repeat("abcdefghij", 10))
	for room := int64(1); room < 120; room++ {
		a, seq := assembler{max: 1000}, 0
		parts := pieces(data, room)
		for i, part := range parts {
			k := "more"
			if i == len(parts)-1 {
				k = "event"
			}
			seq++
			if _, whole, err := a.add(message(strconv.Itoa(seq), "alive", "")); err != nil || !whole {
				t.Fatal(err)
			}
			seq++
			f, whole, err := a.add(message(strconv.Itoa(seq), k, string(part)))
			if err != nil || whole != (k == "event") || whole && !bytes.Equal(f.data, data) {
				t.Fatalf("room %d, piece %d: %+v, %v, %v", room, i, f, whole, err)
			}
		}
	}
	if got := pieces(nil, 10); len(got) != 1 || len(got[0]) != 0 {
		t.Errorf("pieces of nothing: %v", got)
	}
	for _, most := range []int64{0, 1, 2, 100, 8 << 10, 1 << 20} {
		if room := roomFor(most); room < 1 || most > 0 && room > most {
			t.Errorf("room of %d is %d", most, room)
		}
	}
}

// No reply from outside, whatever is in it, gives a stream that reads as more
// events than it had, hangs or panics.
func FuzzReply(f *testing.F) {
	f.Add("1", "event", "7", []byte(`{"a":1}`), "2", "end", []byte(""))
	f.Add("1", "more", "", []byte(`{"a":`), "2", "answer", []byte("1}"))
	f.Add("1", "event", "7\n\ndata: forged", []byte("x\n\ndata: forged\n\n"), "2", "event", []byte("\r\n\r\n"))
	f.Add("1", "cut", "", []byte(""), "9", "alive", []byte("x"))
	f.Fuzz(func(t *testing.T, seq1, kind1, id string, data1 []byte, seq2, kind2 string, data2 []byte) {
		a := assembler{max: 1 << 16}
		first := message(seq1, kind1, string(data1))
		first.Header[HeaderEvent] = []string{id}
		var frames int
		var out bytes.Buffer
		for _, m := range []*nats.Msg{first, message(seq2, kind2, string(data2))} {
			got, whole, err := a.add(m)
			if err != nil {
				break
			}
			if whole && got.kind == kindEvent {
				frames++
				out.Write(asEvent(got.event, got.data))
			}
		}
		if n := strings.Count(out.String(), "\n\n"); n != frames {
			t.Errorf("%d events read as %d: %q", frames, n, out.String())
		}
	})
}

// What is read from a request never leaves the allow-list of headers.
func FuzzRequestHeaders(f *testing.F) {
	f.Add("A2A-Version", "1.0")
	f.Add("authorization", "Bearer x\r\nCookie: y")
	f.Add("Agenticraft-Delegation", "AA")
	f.Fuzz(func(t *testing.T, name, value string) {
		outside := http.Header{}
		outside.Add(name, value)
		inside := http.Header{}
		copyHeaders(inside.Set, outside, requestHeaders)
		allowed := 0
		for _, n := range requestHeaders {
			allowed += len(inside.Values(n))
		}
		if total := len(inside); total != allowed {
			t.Errorf("%q came through", name)
		}
		_, _ = io.WriteString(io.Discard, describe(400, []byte(value)))
	})
}
