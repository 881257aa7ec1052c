package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/agent"
	"github.com/agenticraft/node/authz"
	httpdoor "github.com/agenticraft/node/bridges/http"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/registry"
)

// forHeader names, between nodes, the principal for whom a door asks. The node
// that keeps the evidence asks its own policy about that principal.
const forHeader = "Agenticraft-For"

const maxPeerEvidence = agent.MaxEvidence + 1

// Evidence fetches what a peer keeps of a task that it ran.
func (p *meshPeers) Evidence(ctx context.Context, at identity.ID, task string, by identity.Principal) ([]byte, error) {
	return p.evidence(ctx, http.MethodGet, at, "/"+task, by)
}

// EraseEvidence has a peer erase what it keeps of a task.
func (p *meshPeers) EraseEvidence(ctx context.Context, at identity.ID, task string, by identity.Principal) (uint64, error) {
	text, err := p.evidence(ctx, http.MethodDelete, at, "/"+task, by)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(string(text), 10, 53)
}

// Others are the members besides this node.
func (p *meshPeers) Others() []identity.ID {
	members, err := p.members.Members()
	if err != nil {
		return nil
	}
	var out []identity.ID
	for _, m := range members {
		if m.ID != p.node.ID() && m.Role != registry.Auditor { // auditors run nothing
			out = append(out, m.ID)
		}
	}
	return out
}

// FindEvidence asks a peer what it keeps with a digest.
func (p *meshPeers) FindEvidence(ctx context.Context, at identity.ID, digest string, by identity.Principal) ([]agent.FoundEvidence, error) {
	text, err := p.evidence(ctx, http.MethodGet, at, "?sha256="+url.QueryEscape(digest), by)
	if err != nil {
		return nil, err
	}
	var found []agent.FoundEvidence
	if err := json.Unmarshal(text, &found); err != nil {
		return nil, fmt.Errorf("evidence of a peer: %w", err)
	}
	return found, nil
}

func (p *meshPeers) evidence(ctx context.Context, method string, at identity.ID, what string, by identity.Principal) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+string(at)+"/evidence"+what, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set(forHeader, by.String())
	res, err := p.links.client(at, protocolA2A).Do(req)
	if err != nil {
		return nil, fmt.Errorf("evidence of a peer: %w", err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxPeerEvidence))
	switch {
	case err != nil:
		return nil, fmt.Errorf("evidence of a peer: %w", err)
	case res.StatusCode >= http.StatusBadRequest:
		return nil, httpdoor.ParseProblem(res.StatusCode, text)
	case len(text) >= maxPeerEvidence:
		return nil, errors.New("evidence of a peer is too large")
	}
	return text, nil
}

// evidenceRoutes answers other nodes about the evidence kept here.
func evidenceRoutes(mux *http.ServeMux, path *agent.Agent, gate *gate, log *slog.Logger) {
	serve := func(action string, do func(ctx context.Context, task string, by identity.Principal) ([]byte, error)) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			by, ok := gate.directory.Principal(r.Header.Get(forHeader))
			var text []byte
			err := error(a2a.Errorf(a2a.CodeDenied, "only agents and API keys are known at the node that keeps the evidence: ask that node itself"))
			if ok {
				err = gate.Permit(r.Context(), by, action)
			}
			if err == nil {
				text, err = do(r.Context(), r.PathValue("task"), by)
			}
			if err != nil {
				log.InfoContext(r.Context(), "evidence not given", "task", r.PathValue("task"), "actor", by.String(), "err", err)
				httpdoor.Fail(w, r, err, log)
				return
			}
			w.Header().Set("Content-Type", "application/octet-stream")
			_, _ = w.Write(text) // the peer may be gone
		})
	}
	mux.Handle("GET /evidence/{task}", serve(authz.EvidenceRead, func(_ context.Context, task string, _ identity.Principal) ([]byte, error) {
		return path.OwnEvidence(task)
	}))
	mux.HandleFunc("GET /evidence", func(w http.ResponseWriter, r *http.Request) {
		digest := r.URL.Query().Get("sha256")
		serve(authz.EvidenceRead, func(ctx context.Context, _ string, _ identity.Principal) ([]byte, error) {
			found, err := path.FindOwnEvidence(ctx, digest)
			if err != nil {
				return nil, err
			}
			return json.Marshal(found)
		}).ServeHTTP(w, r)
	})
	mux.Handle("DELETE /evidence/{task}", serve(authz.EvidenceErase, func(ctx context.Context, task string, by identity.Principal) ([]byte, error) {
		index, err := path.EraseOwnEvidence(ctx, task, by)
		return strconv.AppendUint(nil, index, 10), err
	}))
}

// keptEvidence is evidence as the HTTP door shows it.
type keptEvidence struct{ path *agent.Agent }

func (e keptEvidence) Show(ctx context.Context, task string, by identity.Principal) (any, error) {
	view, err := e.path.ShowEvidence(ctx, task, by)
	return view, err
}

func (e keptEvidence) Find(ctx context.Context, digest string, by identity.Principal) (any, int, error) {
	found, err := e.path.FindEvidence(ctx, digest, by)
	return found, len(found.Found), err
}

func (e keptEvidence) Part(ctx context.Context, task, part string, by identity.Principal) ([]byte, error) {
	view, err := e.path.ShowEvidence(ctx, task, by)
	if err != nil {
		return nil, err
	}
	for _, p := range view.Parts {
		if p.Name == part || p.SHA256 == part {
			return p.Data, nil
		}
	}
	return nil, &a2a.Error{Code: a2a.CodeNotFound, Message: "the evidence of the task has no such part", Hint: "agenticraft audit evidence show TASK lists the parts"}
}

func (e keptEvidence) Erase(ctx context.Context, task string, by identity.Principal) (uint64, error) {
	return e.path.EraseEvidence(ctx, task, by)
}
