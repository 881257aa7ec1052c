package audit_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/transparency-dev/formats/log"
	cosignature "github.com/transparency-dev/formats/note"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/client"
	"github.com/transparency-dev/tessera/fsck"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/audit/audittest"
	"github.com/agenticraft/node/identity"
)

// theirVerifier is transparency-dev's verifier of a keeper's cosignatures, made
// of the key as the trust file has it.
func theirVerifier(tb testing.TB, vkey string) note.Verifier {
	tb.Helper()
	v, err := cosignature.NewVerifierForCosignatureV1(vkey)
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

// theirLeaves takes an entry bundle apart and hashes its leaves, with none of
// our code.
func theirLeaves(bundle []byte) (out [][]byte, err error) {
	for len(bundle) > 0 {
		n := int(binary.BigEndian.Uint16(bundle))
		if len(bundle) < 2+n {
			return nil, fmt.Errorf("a bundle ends within a leaf")
		}
		out = append(out, rfc6962.DefaultHasher.HashLeaf(bundle[2:2+n]))
		bundle = bundle[2+n:]
	}
	return out, nil
}

// What we serve is what tools that nobody here wrote can verify: Tessera's fsck
// reads the whole log, transparency-dev's and Go's libraries check a checkpoint
// and an inclusion proof. After one flipped bit, fsck says no.
func TestOtherPeoplesToolsVerifyTheLog(t *testing.T) {
	c := newCluster(t, 3)
	key, origin := c.keys[0], c.stores[0].Origin()
	for at := 0; at < 600; at += 200 {
		var leaves [][]byte
		for i := range 200 {
			leaves = append(leaves, vectorLeaf(t, key, at+i))
		}
		if _, err := c.Propose(deadline(t), audit.SignBatch(key, origin, leaves)); err != nil {
			t.Fatal(err)
		}
	}
	c.run()
	if _, _, err := c.stores[0].WaitCheckpoint(deadline(t), 600); err != nil {
		t.Fatal(err)
	}
	var spoil atomic.Value // path of a tile to spoil
	spoil.Store("")
	handler := audit.PublicHandler(c.stores[0])
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != spoil.Load() {
			handler.ServeHTTP(w, r)
			return
		}
		rec := httptest.NewRecorder()
		handler.ServeHTTP(rec, r)
		body := rec.Body.Bytes()
		body[len(body)/2] ^= 1
		_, _ = w.Write(body)
	}))
	defer server.Close()
	root, err := url.Parse(server.URL + "/")
	if err != nil {
		t.Fatal(err)
	}
	fetcher, err := client.NewHTTPFetcher(root, nil)
	if err != nil {
		t.Fatal(err)
	}
	check := func(vkey string) error {
		// One worker would wait for ever after it found a fault.
		return fsck.New(origin, theirVerifier(t, vkey), fetcher, theirLeaves, fsck.Opts{N: 4}).Check(deadline(t))
	}
	for _, vkey := range c.trust().Keys {
		if _, err := signedBy(fetcher, origin, vkey); err != nil {
			continue // a quorum of two may have signed without the third
		}
		if err := check(vkey); err != nil {
			t.Errorf("fsck: %v", err)
		}
		for _, tile := range []string{"/tile/entries/001", "/tile/0/000", "/tile/1/000.p/2"} {
			spoil.Store(tile)
			if check(vkey) == nil {
				t.Errorf("fsck does not notice a flipped bit in %s", tile)
			}
		}
		spoil.Store("")
	}
	// What is not in the tree is not there.
	if _, err := fetcher.ReadTile(deadline(t), 0, 3, 0); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a tile beyond the tree: %v", err)
	}
	head, err := http.Get(server.URL + "/checkpoint")
	if err != nil {
		t.Fatal(err)
	}
	defer head.Body.Close()
	if got := head.Header.Get("Content-Type"); got != "text/plain; charset=utf-8" {
		t.Errorf("the checkpoint is %s", got)
	}
}

func signedBy(f *client.HTTPFetcher, origin, vkey string) (*log.Checkpoint, error) {
	v, err := cosignature.NewVerifierForCosignatureV1(vkey)
	if err != nil {
		return nil, err
	}
	cp, _, _, err := client.FetchCheckpoint(context.Background(), f.ReadCheckpoint, v, origin)
	return cp, err
}

// vectorLeaf is entry number i+1 of the vectors' log, the same in every run.
func vectorLeaf(tb testing.TB, key *identity.Key, i int) []byte {
	tb.Helper()
	leaf, err := audit.Entry{
		V: 1, Kind: audit.KindDenial, ID: fmt.Sprint("v", i), Author: key.ID(), Body: []byte(`{"code":"policy"}`),
		Time: audit.FormatTime(time.Date(2026, 1, 1, 0, 0, i, 0, time.UTC)),
	}.Encode()
	if err != nil {
		tb.Fatal(err)
	}
	return leaf
}

var writeVectors = flag.Bool("write-vectors", false, "write those of testdata/tlog that are missing")

// The published vectors: a log of 11 entries as it is served, a proof, and whom
// to trust. Read by other people's code, they hold.
func TestTLogVectors(t *testing.T) {
	dir := filepath.Join("testdata", "tlog")
	if *writeVectors {
		makeVectors(t, dir)
	}
	file := func(name string) []byte {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	trust, err := audit.ParseTrust(file("trust.json"))
	if err != nil {
		t.Fatal(err)
	}
	var cp *log.Checkpoint
	for _, vkey := range trust.Keys {
		if cp, _, _, err = log.ParseCheckpoint(file("checkpoint"), trust.Origin, theirVerifier(t, vkey)); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := trust.Verify(file("checkpoint")); err != nil || cp.Size != 11 {
		t.Fatalf("%+v, %v", cp, err)
	}
	leaves, err := theirLeaves(file("entries-000.p-11"))
	if err != nil || len(leaves) != 11 || !bytes.Equal(bytes.Join(leaves, nil), file("tile-0-000.p-11")) {
		t.Fatalf("%d leaves do not hash to the tile: %v", len(leaves), err)
	}
	// The root from the tile by Go's library, the proof by transparency-dev's.
	hashes := make(map[int64]tlog.Hash)
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			out[i] = hashes[index]
		}
		return out, nil
	})
	for i, leaf := range leaves {
		stored, err := tlog.StoredHashesForRecordHash(int64(i), tlog.Hash(leaf), reader)
		if err != nil {
			t.Fatal(err)
		}
		for level, h := range stored {
			hashes[tlog.StoredHashIndex(level, int64(i)>>level)] = h
		}
	}
	if root, err := tlog.TreeHash(11, reader); err != nil || !bytes.Equal(root[:], cp.Hash) {
		t.Errorf("root %s, %v", root, err)
	}
	p, err := audit.ParseTLogProof(file("entry-6.tlog-proof"))
	if err != nil || !bytes.Equal(p.Text(), file("entry-6.tlog-proof")) || !bytes.Equal(p.Checkpoint, file("checkpoint")) {
		t.Fatalf("%+v, %v", p, err)
	}
	var path [][]byte
	for _, h := range p.Proof {
		path = append(path, h[:])
	}
	if err := proof.VerifyInclusion(rfc6962.DefaultHasher, p.Index, cp.Size, leaves[6], path, cp.Hash); err != nil {
		t.Error(err)
	}
	leaf := file("entry-6.json")
	if _, err := p.Verify(leaf, trust); err != nil {
		t.Error(err)
	}
	if _, err := p.Verify(leaf[1:], trust); err == nil {
		t.Error("another leaf is proved")
	}
	for name, text := range map[string]string{
		"version": strings.Replace(string(p.Text()), "@v1", "@v2", 1), "index": strings.Replace(string(p.Text()), "index 6", "index 06", 1),
		"no checkpoint": "c2sp.org/tlog-proof@v1\nindex 6\n", "empty": "", "hash": strings.Replace(string(p.Text()), "=\n", "\n", 1),
	} {
		if _, err := audit.ParseTLogProof([]byte(text)); err == nil {
			t.Errorf("%s: taken for a proof", name)
		}
	}
}

func makeVectors(t *testing.T, dir string) {
	t.Helper()
	l := audittest.New(t, nil, nil)
	keepers := []*identity.Key{audittest.Key(t, 1), audittest.Key(t, 2), audittest.Key(t, 3)}
	var leaves [][]byte
	for i := range 10 {
		leaves = append(leaves, vectorLeaf(t, keepers[0], i))
	}
	if _, err := l.Propose(deadline(t), audit.SignBatch(keepers[0], l.Store.Origin(), leaves)); err != nil {
		t.Fatal(err)
	}
	size, root, err := l.Store.Tree()
	if err != nil {
		t.Fatal(err)
	}
	at := audit.Checkpoint{Origin: l.Store.Origin(), Size: size, Root: root}
	text, err := audit.CosignAll(keepers, at, time.Date(2026, 1, 1, 0, 1, 0, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	trust, err := audit.NewTrust(at.Origin, 1, []identity.ID{keepers[0].ID(), keepers[1].ID(), keepers[2].ID()})
	if err != nil {
		t.Fatal(err)
	}
	trustText, err := trust.Encode()
	if err != nil {
		t.Fatal(err)
	}
	path, err := l.Store.ProveEntry(6, size)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(audit.PublicHandler(l.Store))
	defer server.Close()
	tiles := tileClient{t, server.URL}
	_, tile := tiles.get("/tile/0/000.p/11")
	_, bundle := tiles.get("/tile/entries/000.p/11")
	for name, data := range map[string][]byte{
		"trust.json": trustText, "checkpoint": text, "tile-0-000.p-11": tile, "entries-000.p-11": bundle, "entry-6.json": leaves[5],
		"entry-6.tlog-proof": audit.TLogProof{Index: 6, Proof: path, Checkpoint: text}.Text(),
	} {
		name = filepath.Join(dir, name)
		if _, err := os.Stat(name); err == nil {
			continue // vectors are never changed
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func FuzzParseTLogProof(f *testing.F) {
	f.Add([]byte("c2sp.org/tlog-proof@v1\nindex 0\n\nx\n1\n"))
	f.Add([]byte("c2sp.org/tlog-proof@v1\nextra AA==\nindex 5\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\nx\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := audit.ParseTLogProof(text)
		if err == nil && !bytes.Contains(text, []byte("\nextra ")) && !bytes.Equal(p.Text(), text) {
			t.Errorf("%q is written again as %q", text, p.Text())
		}
	})
}
