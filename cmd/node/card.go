package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

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
func newCard(cfg *config, secure *tlsFiles, key *identity.Key, clusterName string, m *sandbox.Manager) (http.Handler, error) {
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
	base, grpcAddr := reachedAt(cfg, secure)
	text, err := a2a.Card(a2a.CardConfig{
		Key:         key,
		Name:        "AgentiCraft node",
		Description: "Runs code in sandboxes, under policy and on the record.",
		Version:     buildVersion().Version,
		Cluster:     clusterName,
		Interfaces: append([]a2a.CardInterface{
			{URL: base + a2aPath},
			{URL: base + httpdoor.RESTPath, Binding: string(sdk.TransportProtocolHTTPJSON)},
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

// reachedAt is where others reach the doors: the base of the HTTP door's URLs,
// and the address for gRPC. A door that listens on every address has none of its
// own; without public_url it goes by the first name in its certificate.
func reachedAt(cfg *config, secure *tlsFiles) (base, grpcAddr string) {
	scheme, addr, grpcAddr := "http", cfg.HTTP, cfg.GRPC
	if secure != nil {
		scheme = "https"
	}
	if grpcAddr == "" {
		grpcAddr = addr
	}
	name := ""
	if public, err := url.Parse(cfg.PublicURL); err == nil && cfg.PublicURL != "" {
		name = public.Hostname()
	} else if secure != nil {
		if names := secure.state().certificate.Leaf.DNSNames; len(names) > 0 {
			name = names[0]
		}
	}
	for _, at := range []*string{&addr, &grpcAddr} {
		host, port, err := net.SplitHostPort(*at)
		if ip := net.ParseIP(host); err == nil && name != "" && (host == "" || ip != nil && ip.IsUnspecified()) {
			*at = net.JoinHostPort(name, port)
		}
	}
	if cfg.PublicURL != "" {
		return strings.TrimSuffix(cfg.PublicURL, "/"), grpcAddr
	}
	return scheme + "://" + addr, grpcAddr
}

func checkPublicURL(text string) error {
	u, err := url.Parse(text)
	if text != "" && (err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "") {
		return fmt.Errorf("%q is not a URL such as https://node1.example.com:8420", text)
	}
	return nil
}
