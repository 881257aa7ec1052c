package main

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"net/http"
	"slices"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a"
	httpdoor "github.com/agenticraft/node/bridges/http"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/sandbox"
)

// a2aPath is where the HTTP door serves A2A over JSON-RPC.
const a2aPath = httpdoor.JSONRPCPath

// newCard serves the node's signed agent card. Its bytes are made once: what a
// node offers does not change while it runs. Without a port of its own, gRPC
// is on the HTTP door's.
func newCard(cfg *config, key *identity.Key, clusterName string, m *sandbox.Manager) (http.Handler, error) {
	languages, backends := map[string]bool{}, map[string]bool{}
	for _, d := range m.Describe() {
		if !d.Available {
			continue
		}
		backends[d.Name] = true
		for _, l := range d.Languages {
			languages[l] = true
		}
	}
	addr, grpcAddr := cfg.HTTP, cfg.GRPC
	if grpcAddr == "" {
		grpcAddr = addr
	}
	text, err := a2a.Card(a2a.CardConfig{
		Key:         key,
		Name:        "AgentiCraft node",
		Description: "Runs code in sandboxes, under policy and on the record.",
		Version:     buildVersion().Version,
		Cluster:     clusterName,
		Interfaces: append([]a2a.CardInterface{
			{URL: "http://" + addr + a2aPath},
			{URL: "http://" + addr + httpdoor.RESTPath, Binding: string(sdk.TransportProtocolHTTPJSON)},
			{URL: grpcAddr, Binding: string(sdk.TransportProtocolGRPC)},
		}, cfg.NATS.interfaces()...),
		Languages: slices.Sorted(maps.Keys(languages)),
		Push:      cfg.Push,
		Sandboxes: slices.Sorted(maps.Keys(backends)),
	})
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(text)
	etag := `"` + hex.EncodeToString(sum[:16]) + `"`
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "application/json")
		h.Set("Cache-Control", "public, max-age=60")
		h.Set("ETag", etag)
		if r.Header.Get("If-None-Match") == etag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = w.Write(text) // the client may be gone
	}), nil
}
