package protocol_test

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/agenticraft/node/sandbox/worker/protocol"
	"github.com/google/go-cmp/cmp"
)

var example = protocol.Request{
	Code:  []byte("result = 1"),
	Stdin: []byte("in"),
	Files: []protocol.Input{{Path: "a/b", Content: []byte("x\x00y")}, {Path: "c", Content: []byte{}}},
	Order: protocol.Order{Wall: time.Second, Output: 1, Result: 2, Stack: 3, Steps: 4},
}

func encoded(t testing.TB, q protocol.Request) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := protocol.WriteRequest(&b, q); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestRequestRoundTrip(t *testing.T) {
	r := bytes.NewReader(encoded(t, example))
	got, err := protocol.ReadRequest(r)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(example, got); diff != "" {
		t.Error(diff)
	}
	if _, err := protocol.ReadRequest(r); !errors.Is(err, io.EOF) {
		t.Errorf("ReadRequest at the end = %v, want EOF", err)
	}
}

func TestReadRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		bytes string
		want  error
	}{
		"nothing":             {"", io.EOF},
		"half a header":       {"o\x00\x00", io.ErrUnexpectedEOF},
		"half a payload":      {"o\x00\x00\x00\x05ab", io.ErrUnexpectedEOF},
		"half a long payload": {"v\x00\x20\x00\x00ab", io.ErrUnexpectedEOF},
		"unknown kind":        {"?\x00\x00\x00\x00", protocol.ErrProtocol},
		"kind of the node":    {"c\x00\x00\x00\x00", protocol.ErrProtocol},
		"2 GiB":               {"v\x80\x00\x00\x00", protocol.ErrProtocol},
		"long hello":          {"h\x00\x00\x10\x00x", protocol.ErrProtocol},
	} {
		kind, payload, err := protocol.Read(bytes.NewReader([]byte(tt.bytes)), protocol.Hello, protocol.Stdout, protocol.Value)
		if !errors.Is(err, tt.want) || kind != 0 || payload != nil {
			t.Errorf("%s: Read = %q, %q, %v, want %v", name, kind, payload, err, tt.want)
		}
	}
}

func TestReadRequestRefusesDisorder(t *testing.T) {
	frame := func(kind protocol.Kind, payload string) string {
		var b bytes.Buffer
		if err := protocol.Write(&b, kind, []byte(payload)); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	for name, text := range map[string]string{
		"no code":           frame(protocol.Go, "{}"),
		"code twice":        frame(protocol.Code, "") + frame(protocol.Code, ""),
		"file without path": frame(protocol.Code, "") + frame(protocol.File, "abc"),
		"order not JSON":    frame(protocol.Code, "") + frame(protocol.Go, "{"),
	} {
		if _, err := protocol.ReadRequest(bytes.NewReader([]byte(text))); !errors.Is(err, protocol.ErrProtocol) {
			t.Errorf("%s: ReadRequest = %v, want ErrProtocol", name, err)
		}
	}
	if _, err := protocol.ReadRequest(bytes.NewReader([]byte(frame(protocol.Code, "x")))); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut short: ReadRequest = %v", err)
	}
}

// FuzzRead: what parses encodes to the same bytes again, and an error returns
// nothing.
func FuzzRead(f *testing.F) {
	f.Add(encoded(f, example))
	f.Add([]byte("h\x00\x00\x00\x00o\x00\x00\x00\x02hid\x00\x00\x00\x02{}"))
	f.Add([]byte("v\x00\x00\x00\x01"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		var again bytes.Buffer
		for {
			kind, payload, err := protocol.Read(r, protocol.Hello, protocol.Stdout, protocol.Stderr, protocol.Value, protocol.Done, protocol.Code, protocol.Stdin, protocol.File, protocol.Go)
			if err != nil {
				if kind != 0 || payload != nil {
					t.Fatalf("error %v with frame %q %q", err, kind, payload)
				}
				break
			}
			if err := protocol.Write(&again, kind, payload); err != nil {
				t.Fatalf("what was read cannot be written: %v", err)
			}
			if kind == protocol.Done {
				_, _ = protocol.ParseReport(payload) // must not panic
			}
		}
		if !bytes.HasPrefix(data, again.Bytes()) {
			t.Fatalf("%q was written again as %q", data, again.Bytes())
		}
	})
}

// FuzzReadRequest: any request that parses is written and parsed to the same.
func FuzzReadRequest(f *testing.F) {
	f.Add(encoded(f, example))
	f.Fuzz(func(t *testing.T, data []byte) {
		q, err := protocol.ReadRequest(bytes.NewReader(data))
		if err != nil {
			return
		}
		again, err := protocol.ReadRequest(bytes.NewReader(encoded(t, q)))
		if err != nil {
			t.Fatal(err)
		}
		if len(q.Stdin) == 0 {
			q.Stdin = again.Stdin // an empty frame and none are the same
		}
		if diff := cmp.Diff(q, again); diff != "" {
			t.Fatal(diff)
		}
	})
}
