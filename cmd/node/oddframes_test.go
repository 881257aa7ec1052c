package main

import (
	"encoding/binary"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/a2aproject/a2a-go/v2/a2apb/v1"

	"github.com/agenticraft/node/a2a"
)

// Frames of HTTP/2 (RFC 9113, 6).
const (
	h2Data, h2Headers, h2Reset, h2Settings, h2Ping, h2Goaway, h2Window, h2Continuation = 0, 1, 3, 4, 6, 7, 8, 9

	h2EndStream, h2EndHeaders = 1, 4
)

const h2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

func h2Frame(kind, flags byte, stream uint32, payload string) string {
	head := binary.BigEndian.AppendUint32(nil, uint32(len(payload))<<8|uint32(kind))
	return string(binary.BigEndian.AppendUint32(append(head, flags), stream)) + payload
}

// h2Fields writes header fields as literals without Huffman (RFC 7541, 6.2.2).
func h2Fields(fields ...string) string {
	var out strings.Builder
	for i, text := range fields {
		if i%2 == 0 {
			out.WriteByte(0)
		}
		n := len(text)
		if n < 127 {
			out.WriteByte(byte(n))
		} else { // the rest in groups of seven bits (RFC 7541, 5.1)
			out.WriteByte(127)
			for n -= 127; n >= 128; n /= 128 {
				out.WriteByte(byte(n%128) | 128)
			}
			out.WriteByte(byte(n))
		}
		out.WriteString(text)
	}
	return out.String()
}

// oddFrames speaks HTTP/2 to the port as no library would: what is against the
// protocol ends the connection, and nobody else's.
func (d *oddDoors) oddFrames(t *testing.T) {
	settings := h2Preface + h2Frame(h2Settings, 0, 0, "")
	fields := h2Fields(":method", "POST", ":scheme", "http", ":path", "/lf.a2a.v1.A2AService/GetTask", ":authority", "x",
		"content-type", "application/grpc", "te", "trailers", "a2a-version", a2a.Version, "authorization", "Bearer "+d.key)
	open := func(stream uint32) string { return h2Frame(h2Headers, h2EndHeaders, stream, fields) }
	var resets, pings, moreSettings strings.Builder
	for i := range uint32(2000) {
		resets.WriteString(open(2*i+1) + h2Frame(h2Reset, 0, 2*i+1, "\x00\x00\x00\x08"))
		pings.WriteString(h2Frame(h2Ping, 0, 0, "12345678"))
		moreSettings.WriteString(h2Frame(h2Settings, 0, 0, "\x00\x04\x00\x00\xff\xff"))
	}
	for name, say := range map[string]string{
		"HTTP/1.1":                      "POST / HTTP/1.1\r\nHost: x\r\n\r\n",
		"TLS":                           "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
		"NUL bytes":                     strings.Repeat("\x00", 5000),
		"half a preface":                h2Preface[:10],
		"no settings":                   h2Preface,
		"garbage":                       h2Preface + strings.Repeat("\xff", 100),
		"an unknown frame":              settings + h2Frame(200, 0xff, 7, "x"),
		"a frame of 16 MiB":             settings + "\xff\xff\xff\x00\x00\x00\x00\x00\x01" + strings.Repeat("x", 1<<20),
		"half a frame":                  settings + open(1)[:20],
		"headers that are none":         settings + h2Frame(h2Headers, h2EndHeaders, 1, "\xff\xff\xff\xff\xff\xff\xff"),
		"headers of stream 0":           settings + h2Frame(h2Headers, h2EndHeaders, 0, fields),
		"headers of an even stream":     settings + open(2),
		"headers of an older stream":    settings + open(5) + open(3),
		"headers twice":                 settings + open(1) + open(1),
		"headers without end":           settings + h2Frame(h2Headers, 0, 1, fields) + strings.Repeat(h2Frame(h2Continuation, 0, 1, h2Fields("x-y", strings.Repeat("z", 8000))), 200),
		"headers that are interrupted":  settings + h2Frame(h2Headers, 0, 1, fields) + h2Frame(h2Ping, 0, 0, "12345678"),
		"headers of 1 MiB":              settings + strings.Repeat(h2Frame(h2Headers, h2EndHeaders|h2EndStream, 1, fields+h2Fields("x-y", strings.Repeat("z", 15_000))), 70),
		"two methods":                   settings + h2Frame(h2Headers, h2EndHeaders|h2EndStream, 1, h2Fields(":method", "GET")+fields),
		"no path":                       settings + h2Frame(h2Headers, h2EndHeaders|h2EndStream, 1, h2Fields(":method", "POST", ":scheme", "http")),
		"capitals":                      settings + h2Frame(h2Headers, h2EndHeaders|h2EndStream, 1, fields+h2Fields("X-Y", "z")),
		"a continuation of nothing":     settings + h2Frame(h2Continuation, h2EndHeaders, 1, fields),
		"data of no stream":             settings + h2Frame(h2Data, 0, 1, "x"),
		"data of stream 0":              settings + h2Frame(h2Data, 0, 0, "x"),
		"data after the end":            settings + h2Frame(h2Headers, h2EndHeaders|h2EndStream, 1, fields) + h2Frame(h2Data, 0, 1, "x"),
		"padding beyond the frame":      settings + open(1) + h2Frame(h2Data, 8, 1, "\xffx"),
		"a message that never ends":     settings + open(1) + h2Frame(h2Data, 0, 1, "\x00\x00\x00\x00\x09abc"),
		"a window of 2^31":              settings + h2Frame(h2Window, 0, 0, "\x7f\xff\xff\xff") + h2Frame(h2Window, 0, 0, "\x7f\xff\xff\xff"),
		"a window of 0":                 settings + h2Frame(h2Window, 0, 0, "\x00\x00\x00\x00"),
		"a ping of 7 bytes":             settings + h2Frame(h2Ping, 0, 0, "1234567"),
		"settings of 5 bytes":           settings + h2Frame(h2Settings, 0, 0, "12345"),
		"a window size of 2^32-1":       settings + h2Frame(h2Settings, 0, 0, "\x00\x04\xff\xff\xff\xff"),
		"a frame size of 1":             settings + h2Frame(h2Settings, 0, 0, "\x00\x05\x00\x00\x00\x01"),
		"thousands of settings":         settings + moreSettings.String(),
		"thousands of pings":            settings + pings.String(),
		"thousands of requests, undone": settings + resets.String(),
		"an end":                        settings + h2Frame(h2Goaway, 0, 0, strings.Repeat("\x00", 8)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // net/http lingers for a second over a connection that it gives up
			if answers := d.converse(t, name, say); strings.Contains(answers, "panic") {
				t.Errorf("%.200q", answers)
			}
			d.wantGRPC(t)
		})
	}
}

// wantGRPC asks for a task that nobody has.
func (d *oddDoors) wantGRPC(t *testing.T) {
	t.Helper()
	frame := "\x00\x00\x00\x00\x03\x12\x01x" // GetTaskRequest{id: "x"}
	got, err := d.ask(d.two, http.MethodPost, "/lf.a2a.v1.A2AService/GetTask", frame, map[string]string{"Content-Type": "application/grpc", "Te": "trailers"})
	if notFound := strconv.Itoa(int(codes.NotFound)); err != nil || got.header.Get("Grpc-Status") != notFound {
		t.Errorf("a request beside it: %d, gRPC status %q, %v", got.status, got.header.Get("Grpc-Status"), err)
	}
}

// manySmall asks thousands of times over one connection, many at a time.
func (d *oddDoors) manySmall(t *testing.T) {
	const requests, together = 10_000, 200
	conn, err := grpc.NewClient(d.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := a2apb.NewA2AServiceClient(conn)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "a2a-version", a2a.Version, "authorization", "Bearer "+d.key)
	var work sync.WaitGroup
	for range together {
		work.Go(func() {
			for range requests / together {
				if _, err := c.GetTask(ctx, &a2apb.GetTaskRequest{Id: "x"}); status.Code(err) != codes.NotFound {
					t.Errorf("one of %d requests: %v", requests, err)
					return
				}
			}
		})
	}
	work.Wait()
}
