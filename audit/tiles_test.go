package audit_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/audit/audittest"
)

// tileClient reads tiles as a stranger's tool does.
type tileClient struct {
	tb  testing.TB
	url string
}

func (c tileClient) Height() int                     { return 8 }
func (c tileClient) SaveTiles([]tlog.Tile, [][]byte) {}
func (c tileClient) ReadTiles(tiles []tlog.Tile) (data [][]byte, err error) {
	for _, tile := range tiles {
		// C2SP paths leave the height out.
		path := strings.Replace(tile.Path(), "tile/8/", "/tile/", 1)
		status, body := c.get(path)
		if status != http.StatusOK {
			return nil, fmt.Errorf("%s: %d %s", path, status, body)
		}
		data = append(data, body)
	}
	return data, nil
}

func (c tileClient) get(path string) (int, []byte) {
	c.tb.Helper()
	resp, err := http.Get(c.url + path)
	if err != nil {
		c.tb.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.tb.Fatal(err)
	}
	return resp.StatusCode, body
}

func TestPublicHandlerServesTiles(t *testing.T) {
	c := newCluster(t, 1)
	key, origin := c.keys[0], c.stores[0].Origin()
	for at := 0; at < 600; {
		var leaves [][]byte
		for range 200 {
			at++
			leaf, err := audit.Entry{
				V: 1, Kind: audit.KindDenial, ID: fmt.Sprint(at), Author: key.ID(),
				Time: audit.FormatTime(time.Now()), Body: []byte(`{"code":"policy"}`),
			}.Encode()
			if err != nil {
				t.Fatal(err)
			}
			leaves = append(leaves, leaf)
		}
		if _, err := c.Propose(deadline(t), audit.SignBatch(key, origin, leaves)); err != nil {
			t.Fatal(err)
		}
	}
	server := httptest.NewServer(audit.PublicHandler(c.stores[0]))
	defer server.Close()
	client := tileClient{t, server.URL}
	if status, _ := client.get("/checkpoint"); status != http.StatusNotFound {
		t.Errorf("checkpoint before there is one: %d", status)
	}
	c.run()
	size, root, err := c.stores[0].Tree()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.stores[0].WaitCheckpoint(deadline(t), size-1); err != nil {
		t.Fatal(err)
	}
	_, text := client.get("/checkpoint")
	at, _, err := c.trust().Verify(text)
	if err != nil || at.Size != 601 || at.Root != root {
		t.Fatalf("checkpoint %+v, %v", at, err)
	}
	hashes := tlog.TileHashReader(tlog.Tree{N: int64(at.Size), Hash: tlog.Hash(at.Root)}, client)
	for _, index := range []int64{0, 1, 255, 256, 511, 512, 600} {
		proof, err := tlog.ProveRecord(int64(at.Size), index, hashes)
		if err != nil {
			t.Fatal(err)
		}
		path := fmt.Sprintf("/tile/entries/%03d", index/256)
		if index >= 512 {
			path += ".p/89"
		}
		_, bundle := client.get(path)
		var leaf []byte
		for range index%256 + 1 {
			n := binary.BigEndian.Uint16(bundle)
			leaf, bundle = bundle[2:2+n], bundle[2+n:]
		}
		if err := tlog.CheckRecord(proof, int64(at.Size), tlog.Hash(at.Root), index, tlog.RecordHash(leaf)); err != nil {
			t.Errorf("entry %d: %v", index, err)
		}
	}
	for path, want := range map[string]int{
		"/tile/0/002": 404, "/tile/0/002.p/90": 404, "/tile/1/000.p/2": 200, "/tile/1/000": 404, "/tile/2/000.p/1": 404,
		"/tile/0/2": 400, "/tile/8/000": 400, "/tile/-1/000": 400, "/tile/0/000.p/0": 400, "/tile/0/000.p/256": 400,
		"/tile/": 400, "/tile/0/x999/x999/x999/x999/999": 400, "/tile/0/" + strings.Repeat("x999/", 60) + "999": 400,
		"/tile/entries/003": 404, "/nothing": 404,
	} {
		if got, body := client.get(path); got != want {
			t.Errorf("%s: %d %s, want %d", path, got, body, want)
		}
	}
}

// Paths that are none of tlog-tiles are refused where they are, whatever prefix
// the handler is behind.
func TestOddTilePaths(t *testing.T) {
	c := newCluster(t, 1)
	c.execution(0, "task1")
	handler := http.StripPrefix("/log", audit.PublicHandler(c.stores[0]))
	for path, want := range map[string]int{
		"/log/tile/entries/000.p/1": 200, "/log/tile/data/000.p/1": 400, "/log/tile": 400, "/log/tile/": 400,
		"/log/tile/0/000.p/256": 400, "/log/tile/0/x000/000.p/1": 400, "/log/tile/8/000.p/1": 400, "/log/tile/0/000": 404,
	} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code != want {
			t.Errorf("%s: %d, want %d", path, w.Code, want)
		}
	}
}

func TestLogHandlerRefuses(t *testing.T) {
	c := newCluster(t, 3)
	c.execution(0, "task1")
	handler := audit.LogHandler(c.stores[0], c.points[0])
	ask := func(method, path, body, from string) int {
		r := httptest.NewRequest(method, path, strings.NewReader(body))
		r.RemoteAddr = from
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return w.Code
	}
	keeper, stranger := string(c.keys[1].ID()), string(audittest.Key(t, 99).ID())
	for _, test := range []struct {
		method, path, body, from string
		want                     int
	}{
		{"POST", "/cosign", "{}", stranger, 403},
		{"POST", "/cosign", "{}", "192.0.2.1:1", 403},
		{"POST", "/cosign", "{}", keeper, 400},
		{"POST", "/cosign", "", keeper, 400},
		{"POST", "/cosign", strings.Repeat(" ", 1<<20), keeper, 400},
		{"POST", "/checkpoint", "", keeper, 400},
		{"POST", "/checkpoint", strings.Repeat("\n", 1<<20), keeper, 400},
		{"GET", "/checkpoint", "", keeper, 404},
		{"GET", "/batches", "", keeper, 400},
		{"GET", "/batches?from=0&size=3", "", keeper, 404},
		{"GET", "/batches?from=1&size=4", "", keeper, 404},
		{"GET", "/batches?from=3&size=3", "", keeper, 404},
		{"GET", "/batches?from=1&size=99999999999999999999", "", keeper, 400},
		{"GET", "/batches?from=1&size=3", "", keeper, 200},
		{"GET", "/cosign", "", keeper, 405},
	} {
		if got := ask(test.method, test.path, test.body, test.from); got != test.want {
			t.Errorf("%s %s from %s: %d, want %d", test.method, test.path, test.from, got, test.want)
		}
	}
}

// A node that knows its log to be the odd one says so to who wants its
// signature, and is unavailable to all else.
func TestForkedHandler(t *testing.T) {
	handler := audit.ForkedHandler("its log is another one")
	for _, c := range []struct {
		method, path string
		status       int
	}{
		{"POST", "/cosign", http.StatusPreconditionFailed},
		{"POST", "/epoch", http.StatusServiceUnavailable},
		{"POST", "/checkpoint", http.StatusServiceUnavailable},
		{"GET", "/checkpoint", http.StatusServiceUnavailable},
		{"GET", "/head?size=1&wait_ms=1", http.StatusServiceUnavailable},
		{"GET", "/cosign", http.StatusServiceUnavailable},
	} {
		rec := httptest.NewRecorder()
		handler.ServeHTTP(rec, httptest.NewRequest(c.method, c.path, nil))
		if rec.Code != c.status || !strings.Contains(rec.Body.String(), "another one") {
			t.Errorf("%s %s: %d %s, want %d", c.method, c.path, rec.Code, rec.Body, c.status)
		}
	}
}
