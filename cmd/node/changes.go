package main

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/authz"
	httpdoor "github.com/agenticraft/node/bridges/http"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/registry"
)

// Changes that whoever asks for them has worded himself, and signed if he has a
// key: the node adds nothing to them and can alter nothing.

// actions say what policy is asked before a change.
var actions = map[string]string{
	"agent/add": authz.AgentAdd, "agent/rotate": authz.AgentAdd,
	"agent/revoke": authz.AgentRevoke, "agent/suspend": authz.AgentRevoke, "agent/resume": authz.AgentRevoke,
	"key/create": authz.KeyCreate, "key/rotate": authz.KeyCreate, "key/revoke": authz.KeyRevoke,
	"role/grant": authz.RoleGrant, "role/revoke": authz.RoleRevoke,
	"tenant/create": authz.TenantCreate, "tenant/set": authz.TenantSet, "tenant/limit": authz.TenantSet, "tenant/retain": authz.TenantSet,
	"policy/apply": authz.PolicyApply, "mandate/revoke": authz.MandateEnd,
}

// Act is the action that policy is asked about before a change.
func (m *admin) Act(req httpdoor.ChangeRequest) (string, error) {
	var body struct{ Action, Layer string }
	if err := json.Unmarshal(req.Body, &body); err != nil {
		return "", a2a.Errorf(a2a.CodeInvalidRequest, "the change has no body")
	}
	action, ok := actions[req.Kind+"/"+body.Action]
	if !ok {
		return "", a2a.Errorf(a2a.CodeInvalidRequest, "there is no change %.40q of kind %.40q", body.Action, req.Kind)
	}
	if action == authz.PolicyApply && body.Layer == registry.LayerAdditions {
		action = authz.PolicyAdd
	}
	return action, nil
}

// changed is what a change answers.
type changed struct {
	Kind   string        `json:"kind"`
	Policy *policyChange `json:"policy,omitempty"`
}

// Change writes a change to the log once what it names makes sense.
func (m *admin) Change(ctx context.Context, by identity.Principal, req httpdoor.ChangeRequest) (any, error) {
	entry, err := registry.ChangeEntry(by.String(), audit.Kind(req.Kind), req.Body)
	if err != nil {
		return nil, recordError(err)
	}
	out := changed{Kind: req.Kind}
	if entry.Kind == audit.KindPolicy {
		out.Policy, err = m.policies.write(ctx, by, entry)
		return out, err
	}
	return out, m.write(ctx, by, entry)
}

// sensible refuses names that mean nothing here, which the log would take.
func (m *admin) sensible(e audit.Entry) error {
	switch e.Kind {
	case audit.KindAgent:
		return checkBody(e, func(b registry.AgentBody) error { return cmp.Or(checkNewName(b.Name), m.checkRoles(b.Roles)) })
	case audit.KindKey:
		return checkBody(e, func(b registry.KeyBody) error { return cmp.Or(checkNewName(b.Name), m.checkRoles(b.Roles)) })
	case audit.KindRole:
		return checkBody(e, func(b registry.RoleBody) error {
			if b.Action == registry.Revoke {
				return nil
			}
			return m.checkRole(b.Role)
		})
	case audit.KindTenant:
		return checkBody(e, func(b registry.TenantBody) error {
			if b.Action == registry.Create {
				return checkNewName(b.Name)
			}
			if b.Ceiling == nil {
				return nil
			}
			given := slices.Clone(b.Ceiling.Network)
			c, err := checkCeiling(*b.Ceiling)
			if err == nil && !slices.Equal(given, c.Network) {
				err = a2a.Errorf(a2a.CodeInvalidRequest, "network: write %s", strings.Join(c.Network, ","))
			}
			return err
		})
	}
	return nil
}

// checkNewName refuses names of agents, keys and tenants that read as something
// else where a name is looked up: an option, a path, an ID or a principal. Those
// that a log holds already go on.
func checkNewName(name string) error {
	if name == "" {
		return nil // the log knows where there must be one
	}
	kind, _, named := strings.Cut(name, ":")
	taken := []string{"did", string(identity.Agent), string(identity.Service), string(identity.User), string(identity.Node)}
	_, err := agentID(name)
	if strings.ContainsRune("-._:@", rune(name[0])) || named && slices.Contains(taken, kind) || err == nil {
		return a2a.Errorf(a2a.CodeInvalidRequest, "%.80q is no name for something new: it must begin with a letter or digit, and be no ID and no principal such as agent:…", name)
	}
	return nil
}

func checkBody[B any](e audit.Entry, check func(B) error) error {
	var b B
	if err := audit.DecodeBody(e.Body, &b); err != nil {
		return recordError(err)
	}
	return check(b)
}

func (m *admin) checkRoles(roles []string) error {
	for _, role := range roles {
		if err := m.checkRole(role); err != nil {
			return err
		}
	}
	return nil
}

// proposer words changes for the client commands, and signs them if there is an
// agent's key.
type proposer struct {
	app  *app
	door *api
}

func (a *app) proposer(ctx context.Context) (*proposer, error) {
	door, err := a.api(ctx)
	if err != nil {
		return nil, err
	}
	return &proposer{a, door}, nil
}

// propose sends one change.
func propose[B registry.AgentBody | registry.KeyBody | registry.TenantBody | registry.RoleBody | registry.PolicyBody | registry.MandateBody](ctx context.Context, p *proposer, kind audit.Kind, body B) (changed, error) {
	var out changed
	if p.door.agent != nil {
		audience, err := p.door.audience(ctx)
		if err != nil {
			return out, err
		}
		if body, err = registry.Sign(p.door.agent, strings.TrimPrefix(audience, a2a.Audience("")), body); err != nil {
			return out, err
		}
	}
	text, err := audit.MarshalBody(body)
	if err != nil {
		return out, err
	}
	err = p.door.do(ctx, "POST", "/v1/changes", httpdoor.ChangeRequest{Kind: string(kind), Body: text}, &out)
	return out, err
}

// tenant is the one that was named, or the caller's own.
func (p *proposer) tenant(ctx context.Context, named string) (string, error) {
	if named != "" {
		return named, nil
	}
	var me identity.Principal
	err := p.door.do(ctx, "GET", "/v1/whoami", nil, &me)
	return me.Tenant, err
}

// key finds an API key by id, or by its name in a tenant.
func (p *proposer) key(ctx context.Context, tenant, text string) (keyView, error) {
	var list struct{ Keys []keyView }
	if err := p.door.do(ctx, "GET", "/v1/keys", nil, &list); err != nil {
		return keyView{}, err
	}
	return find(list.Keys, "API key", text, func(k keyView) bool { return k.ID == text },
		func(k keyView) bool { return k.Revoked == nil && k.Tenant == tenant && k.Name == text })
}

// agent finds an agent by any form of its ID, or by its name in a tenant.
func (p *proposer) agent(ctx context.Context, tenant, text string) (registry.Agent, error) {
	var list struct{ Agents []registry.Agent }
	if err := p.door.do(ctx, "GET", "/v1/agents", nil, &list); err != nil {
		return registry.Agent{}, err
	}
	id, err := agentID(text)
	return find(list.Agents, "agent", text, func(a registry.Agent) bool { return err == nil && a.ID == id },
		func(a registry.Agent) bool {
			return a.Revoked == nil && a.Rotated == "" && a.Tenant == tenant && a.Name == text
		})
}

// find is the first row that one of the tests takes, in their order.
func find[T any](rows []T, what, text string, tests ...func(T) bool) (T, error) {
	for _, wanted := range tests {
		if i := slices.IndexFunc(rows, wanted); i >= 0 {
			return rows[i], nil
		}
	}
	var none T
	return none, a2a.Errorf(a2a.CodeNotFound, "no %s %.80q", what, text)
}

// principal finds an agent or API key by any of its names.
func (p *proposer) principal(ctx context.Context, tenant, text string) (identity.Principal, error) {
	kind, rest, named := strings.Cut(text, ":")
	name := text
	if named && (kind == string(identity.Agent) || kind == string(identity.Service)) {
		name = rest
	} else {
		kind = ""
	}
	agent, agentErr := p.agent(ctx, tenant, name)
	key, keyErr := p.key(ctx, tenant, name)
	for _, err := range []error{agentErr, keyErr} {
		if known := new(a2a.Error); err != nil && (!errors.As(err, &known) || known.Code != a2a.CodeNotFound) {
			return identity.Principal{}, err
		}
	}
	isAgent, isKey := agentErr == nil && kind != string(identity.Service), keyErr == nil && kind != string(identity.Agent)
	switch {
	case isAgent && isKey:
		return identity.Principal{}, a2a.Errorf(a2a.CodeInvalidRequest, "both an agent and an API key are called %.80q; give the ID", text)
	case isAgent:
		return agent.Principal(), nil
	case isKey:
		return identity.Principal{Kind: identity.Service, Name: key.ID, Tenant: key.Tenant, Roles: key.Roles}, nil
	}
	return identity.Principal{}, a2a.Errorf(a2a.CodeNotFound, "no agent or API key %.80q in force in tenant %s", text, tenant)
}

// packed is a policy's files as an entry holds them.
func packed(modules map[string]string) (bundle, digest string, err error) {
	raw, err := authz.Pack(modules)
	if err != nil {
		return "", "", failed("%v", err)
	}
	return base64.StdEncoding.EncodeToString(raw), authz.Digest(modules), nil
}
