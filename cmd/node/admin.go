package main

import (
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"time"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/authz"
	httpdoor "github.com/agenticraft/node/bridges/http"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/registry"
)

// admin changes the registry by writing to the log. It implements the HTTP
// door's Admin.
type admin struct {
	recorder notedRecorder
	registry *registry.Registry
	policy   *authz.Policy
	policies *policies
	used     *keyUse
	denied   func(p identity.Principal, action, code, via string, d authz.Decision)
}

const adminWait = 4 * time.Second

func (m *admin) CreateKey(ctx context.Context, by identity.Principal, req httpdoor.KeyRequest) (httpdoor.CreatedKey, error) {
	expires, err := expiry(req.Expires, time.Now())
	if err != nil {
		return httpdoor.CreatedKey{}, err
	}
	text, id, hash, err := authz.NewAPIKey()
	if err != nil {
		return httpdoor.CreatedKey{}, err
	}
	body := registry.KeyBody{
		Action: registry.Create, ID: id, Name: req.Name, Hash: hex.EncodeToString(hash[:]),
		Tenant: tenantOf(req.Tenant, by), Roles: []string{req.Role}, Scopes: req.Scopes, Expires: expires,
	}
	if err := record(ctx, m, by, body); err != nil {
		return httpdoor.CreatedKey{}, err
	}
	return httpdoor.CreatedKey{ID: id, Name: req.Name, Role: req.Role, Key: text}, nil
}

func (m *admin) RotateKey(ctx context.Context, by identity.Principal, idOrName string, req httpdoor.RotateRequest) (httpdoor.CreatedKey, error) {
	old, err := m.key(by, idOrName)
	if err != nil {
		return httpdoor.CreatedKey{}, err
	}
	until, err := expiry(req.Overlap, time.Now())
	if err != nil {
		return httpdoor.CreatedKey{}, err
	}
	text, hash, err := authz.RotateAPIKey(old.ID)
	if err != nil {
		return httpdoor.CreatedKey{}, err
	}
	body := registry.KeyBody{Action: registry.Rotate, ID: old.ID, Hash: hex.EncodeToString(hash[:]), Until: until}
	if err := record(ctx, m, by, body); err != nil {
		return httpdoor.CreatedKey{}, err
	}
	created := httpdoor.CreatedKey{ID: old.ID, Name: old.Name, Key: text}
	if len(old.Roles) > 0 {
		created.Role = old.Roles[0]
	}
	return created, nil
}

func (m *admin) RevokeKey(ctx context.Context, by identity.Principal, idOrName string) error {
	old, err := m.key(by, idOrName)
	if err != nil {
		return err
	}
	return record(ctx, m, by, registry.KeyBody{Action: registry.Revoke, ID: old.ID})
}

// keyView is an API key as it is listed: without its hash, of no use to who
// lists keys.
type keyView struct {
	ID      string   `json:"id"`
	Name    string   `json:"name"`
	Tenant  string   `json:"tenant"`
	Roles   []string `json:"roles"`
	Scopes  []string `json:"scopes,omitempty"`
	Expires string   `json:"expires,omitempty"`
	Since   uint64   `json:"since"` // index of its entry
	Revoked *uint64  `json:"revoked,omitempty"`
	Overlap string   `json:"overlap,omitempty"`   // until when the secret before the last rotation is good
	Used    string   `json:"last_used,omitempty"` // by any node's account, to the hour; by this node's, exactly
}

func (m *admin) Keys(context.Context) (any, error) {
	keys, err := m.registry.Keys()
	views := []keyView{}
	for _, k := range keys {
		view := keyView{k.ID, k.Name, k.Tenant, k.Roles, k.Scopes, k.Expires, k.Since, k.Revoked, "", max(k.Used, m.used.at(k.ID))}
		if _, until := k.SumBefore(); time.Now().Before(until) {
			view.Overlap = k.Until
		}
		views = append(views, view)
	}
	return map[string]any{"keys": views}, err
}

func (m *admin) AddAgent(ctx context.Context, by identity.Principal, req httpdoor.AgentRequest) (any, error) {
	id, err := agentID(req.ID)
	if err != nil {
		return nil, err
	}
	body := registry.AgentBody{
		Action: registry.Add, ID: id, Name: req.Name, Tenant: tenantOf(req.Tenant, by),
		Roles: []string{req.Role}, Labels: req.Labels,
	}
	if err := record(ctx, m, by, body); err != nil {
		return nil, err
	}
	return map[string]string{"id": string(id), "did": id.DID(), "name": req.Name, "role": req.Role, "tenant": body.Tenant}, nil
}

func (m *admin) RevokeAgent(ctx context.Context, by identity.Principal, idOrName string) error {
	id, err := agentID(idOrName)
	if err != nil {
		found, err := m.registry.AgentByName(by.Tenant, idOrName)
		if err != nil {
			return notFound("agent", idOrName, err)
		}
		id = found.ID
	}
	return record(ctx, m, by, registry.AgentBody{Action: registry.Revoke, ID: id})
}

func (m *admin) Agents(context.Context) (any, error) {
	agents, err := m.registry.Agents()
	return map[string]any{"agents": slices.Concat([]registry.Agent{}, agents)}, err
}

// record writes one change to the log.
func record[B registry.MemberBody | registry.AgentBody | registry.KeyBody | registry.RoleBody | registry.TenantBody | registry.PolicyBody](ctx context.Context, m *admin, by identity.Principal, body B) error {
	entry, err := registry.NewEntry(by.String(), body)
	if err != nil {
		return recordError(err)
	}
	return m.write(ctx, by, entry)
}

// write commits a change. What the keepers refuse is noted, too.
func (m *admin) write(ctx context.Context, by identity.Principal, entry audit.Entry) error {
	if err := m.sensible(entry); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, adminWait)
	defer cancel()
	_, err := m.recorder.Record(ctx, entry)
	if err == nil {
		m.recorder.horizon.reach(ctx) // whoever is told that it is done may rely on it here
	}
	if refusal := new(audit.Refusal); errors.As(err, &refusal) {
		m.denied(by, string(entry.Kind), refusal.Code, "", authz.Decision{})
	}
	return recordError(err)
}

// recordError says what became of a change, in words fit for the caller.
func recordError(err error) error {
	if refusal := new(audit.Refusal); errors.As(err, &refusal) {
		return refused(refusal)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, audit.ErrUnavailable):
		return &a2a.Error{Code: a2a.CodeUnavailable, Message: "no quorum of keepers could record the change, so nothing changed; try again later"}
	case errors.Is(err, audit.ErrUnknown):
		return &a2a.Error{Code: a2a.CodeUnavailable, Message: "the quorum was lost meanwhile: the change may or may not have been made; look before trying again"}
	case errors.Is(err, audit.ErrInvalid):
		return &a2a.Error{Code: a2a.CodeInvalidRequest, Message: err.Error()}
	default:
		return err
	}
}

// refused words a refusal by the keepers: who may not is denied, the rest is a
// mistake in what was asked.
func refused(r *audit.Refusal) error {
	switch r.Code {
	case "signature":
		return &a2a.Error{Code: a2a.CodeDenied, Message: r.Message, Hint: "sign it with the agent's key: agenticraft --agent-key FILE …"}
	case "user":
		return &a2a.Error{Code: a2a.CodeDenied, Message: r.Message, Hint: "use an agent's key that an admin registered (agenticraft agent add, then --agent-key FILE), or an API key"}
	case "role", "scope", "vouching", "principal":
		return &a2a.Error{Code: a2a.CodeDenied, Message: r.Message}
	}
	return &a2a.Error{Code: a2a.CodeInvalidRequest, Message: r.Message}
}

func (m *admin) checkRole(role string) error {
	if roles := m.policy.Roles(); !slices.Contains(roles, role) {
		return a2a.Errorf(a2a.CodeInvalidRequest, "no role %q; there are %v", role, roles)
	}
	return nil
}

func (m *admin) key(by identity.Principal, idOrName string) (registry.Key, error) {
	k, err := m.registry.KeyByID(idOrName)
	if errors.Is(err, registry.ErrNotFound) {
		k, err = m.registry.KeyByName(by.Tenant, idOrName)
	}
	return k, notFound("key", idOrName, err)
}

func notFound(what, name string, err error) error {
	if errors.Is(err, registry.ErrNotFound) {
		return a2a.Errorf(a2a.CodeNotFound, "no %s %q", what, name)
	}
	return err
}

func agentID(text string) (identity.ID, error) {
	if id, err := identity.ParseID(text); err == nil {
		return id, nil
	}
	if id, err := identity.FromDID(text); err == nil {
		return id, nil
	}
	return "", a2a.Errorf(a2a.CodeInvalidRequest, "%.80q is neither a peer ID nor a did:key", text)
}

func tenantOf(asked string, by identity.Principal) string {
	if asked != "" {
		return asked
	}
	return by.Tenant
}

// expiry reads a lifetime or a time; empty is never.
func expiry(text string, now time.Time) (string, error) {
	if text == "" {
		return "", nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		d, err := time.ParseDuration(text)
		if err != nil {
			return "", a2a.Errorf(a2a.CodeInvalidRequest, "expires %q is neither a duration such as 720h nor an RFC 3339 time", text)
		}
		t = now.Add(d)
	}
	if !t.After(now) {
		return "", a2a.Errorf(a2a.CodeInvalidRequest, "expires %q is in the past", text)
	}
	return audit.FormatTime(t), nil
}
