package audit

import (
	"encoding/binary"
	"fmt"
	"net/http"
	"strings"

	"go.etcd.io/bbolt"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	tileHeight = 8 // C2SP tlog-tiles: 256 hashes or entries
	tileWidth  = 1 << tileHeight
	maxPath    = 256 // bytes
)

var errTilePath = fmt.Errorf("%w: a tile is tile/L/N or tile/entries/N, N written as 000, x001/234 and so on, with .p/W behind it if it has only W of 256", ErrInvalid)

// PublicHandler serves the log as C2SP tlog-tiles for whoever may read it:
// /checkpoint and /checkpoint/witnessed, see [Store.Published], /tile/<L>/<N>[.p/<W>] and /tile/entries/<N>[.p/<W>]. It does no
// authentication; put it behind a door with [http.StripPrefix].
func PublicHandler(store *Store) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /checkpoint", func(w http.ResponseWriter, r *http.Request) { servePublished(store, w, false) })
	mux.HandleFunc("GET /checkpoint/witnessed", func(w http.ResponseWriter, r *http.Request) { servePublished(store, w, true) })
	// Without this a mux redirects to /tile/, wherever the handler is served.
	mux.HandleFunc("GET /tile", func(w http.ResponseWriter, r *http.Request) { refuse(w, errTilePath) })
	mux.HandleFunc("GET /tile/", func(w http.ResponseWriter, r *http.Request) {
		data, err := store.tile(r.URL.Path)
		if err != nil {
			refuse(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		// A tile never changes once it exists, whole or partial.
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
		_, _ = w.Write(data) // the reader has gone
	})
	return mux
}

func servePublished(store *Store, w http.ResponseWriter, witnessed bool) {
	_, text, err := store.Published(witnessed)
	if err != nil {
		refuse(w, err)
		return
	}
	w.Header().Set("Cache-Control", "no-cache")
	writeNote(w, text)
}

// tile reads the tile that a C2SP path names.
func (s *Store) tile(path string) ([]byte, error) {
	rest, ok := strings.CutPrefix(path, "/tile/")
	if !ok || len(path) > maxPath {
		return nil, errTilePath
	}
	// tlog's own paths name the height, and call entries data.
	if bundle, ok := strings.CutPrefix(rest, "entries/"); ok {
		rest = "data/" + bundle
	} else if strings.HasPrefix(rest, "data/") {
		return nil, errTilePath
	}
	tile, err := tlog.ParseTilePath(fmt.Sprintf("tile/%d/%s", tileHeight, rest))
	if err != nil || tile.L > 7 || tile.N > maxNumber/tileWidth {
		return nil, errTilePath
	}
	var data []byte
	err = s.viewDurable(func(tx *bbolt.Tx) error {
		at, err := decodeApplied(tx.Bucket(bucketMeta).Get(keyApplied))
		if err != nil {
			return err
		}
		// The tile must lie within the tree: level L has size/256^L hashes.
		if uint64(tile.N)*tileWidth+uint64(tile.W) > at.size>>(tileHeight*max(tile.L, 0)) {
			return fmt.Errorf("tile: %w", ErrNotFound)
		}
		if tile.L < 0 {
			data, err = bundle(tx, uint64(tile.N)*tileWidth, tile.W)
			return err
		}
		data, err = tlog.ReadTileData(tile, treeReader(tx))
		return err
	})
	return data, err
}

// bundle frames entries as tlog-tiles does: 16-bit length, leaf.
func bundle(tx *bbolt.Tx, first uint64, n int) ([]byte, error) {
	var out []byte
	for i := range uint64(n) {
		leaf, err := readLeaf(tx, first+i)
		if err != nil {
			return nil, err
		}
		out = append(binary.BigEndian.AppendUint16(out, uint16(len(leaf))), leaf...)
	}
	return out, nil
}
