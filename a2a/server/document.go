package server

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"time"
)

// Document serves bytes that do not change, such as an agent card, with what
// caches need (A2A 8.6.1): Cache-Control, ETag, Last-Modified, and 304 to those
// who have them. kind is the media type.
func Document(text []byte, kind string) http.Handler {
	sum := sha256.Sum256(text)
	etag := `"` + hex.EncodeToString(sum[:16]) + `"`
	made := time.Now()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", kind)
		h.Set("Cache-Control", "public, max-age=60")
		h.Set("ETag", etag)
		http.ServeContent(w, r, "", made, bytes.NewReader(text))
	})
}
