package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/server"
	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/authz"
	httpdoor "github.com/agenticraft/node/bridges/http"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/registry"
)

// policies keeps the policy in force on this node the one that the log says, and
// answers questions about policies.
type policies struct {
	policy    *authz.Policy
	directory directory
	store     *audit.Store
	admin     *admin
	log       *slog.Logger

	poked chan struct{} // has room for one: the log says something of policy

	mu     sync.Mutex       // one activation at a time; guards what follows
	failed map[string]error // layer -> why the policy that the log says is not in force here
}

// poke has the log looked at again.
func (p *policies) poke() {
	select {
	case p.poked <- struct{}{}:
	default: // somebody has asked already
	}
}

// run activates what the log says until ctx is done.
func (p *policies) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.poked:
			p.activate(ctx)
		}
	}
}

// activate puts the policies that the log says in force. One that does not pass
// its tests here is not, and the old one stays.
func (p *policies) activate(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	base, additions := p.policy.Layers()
	p.failed = map[string]error{}
	for _, layer := range []struct {
		name, active string
		replace      func(context.Context, map[string]string) error
	}{
		{registry.LayerBase, base, p.policy.Replace}, {registry.LayerAdditions, additions, p.policy.ReplaceAdditions},
	} {
		row, err := p.directory.Policy(layer.name)
		if errors.Is(err, registry.ErrNotFound) {
			continue // the built-in one, or none
		}
		if err == nil && row.Digest != layer.active && (row.Digest != noPolicy || layer.active != "") {
			var modules map[string]string
			if modules, err = p.bundle(row.Since); err == nil {
				err = layer.replace(ctx, modules)
			}
		}
		if err != nil {
			p.failed[layer.name] = err
			p.log.ErrorContext(ctx, "policy not activated, the one before stays in force", "layer", layer.name, "wanted", row.Digest, "active", layer.active, "err", err)
		}
	}
}

// noPolicy is the digest of additions that were taken away.
var noPolicy = authz.Digest(nil)

// problem is why a policy that the log says is not in force here.
func (p *policies) problem() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var faults []error
	for _, layer := range sortedKeys(p.failed) {
		faults = append(faults, p.failed[layer])
	}
	if err := errors.Join(faults...); err != nil {
		return err.Error()
	}
	return ""
}

// bundle reads a policy's files from its entry.
func (p *policies) bundle(index uint64) (map[string]string, error) {
	entry, _, err := p.store.Entry(index)
	if err != nil {
		return nil, err
	}
	var body registry.PolicyBody
	if err := audit.DecodeBody(entry.Body, &body); err != nil {
		return nil, err
	}
	return unpacked(body)
}

// unpacked are the files of a policy's entry; nil if it takes the additions away.
func unpacked(body registry.PolicyBody) (map[string]string, error) {
	var modules map[string]string
	if body.Bundle != "" {
		raw, err := base64.StdEncoding.DecodeString(body.Bundle)
		if err != nil {
			return nil, err
		}
		if modules, err = authz.Unpack(raw); err != nil {
			return nil, err
		}
	}
	if authz.Digest(modules) != body.Digest {
		return nil, errors.New("the bundle is not the one that it names")
	}
	return modules, nil
}

// policyChange is what `policy apply` answers.
type policyChange struct {
	Digest string           `json:"digest"`
	Before string           `json:"before"`
	Layer  string           `json:"layer,omitempty"`
	Tests  authz.TestReport `json:"tests"`
	Active bool             `json:"active"` // on the node that answers
	Error  string           `json:"error,omitempty"`
}

// Apply writes a policy to the log for a caller who has no key to sign it with.
func (p *policies) Apply(ctx context.Context, by identity.Principal, req httpdoor.PolicyRequest) (any, error) {
	modules, err := p.wanted(req)
	if err != nil {
		return nil, err
	}
	body := registry.PolicyBody{Action: registry.Apply, Layer: req.Layer}
	if len(modules) > 0 {
		raw, err := authz.Pack(modules)
		if err != nil {
			p.refused(by, err)
			return nil, a2a.Errorf(a2a.CodeInvalidRequest, "%s", err)
		}
		body.Bundle = base64.StdEncoding.EncodeToString(raw)
	}
	body.Digest = authz.Digest(modules)
	if row, err := p.directory.Policy(req.Layer); err == nil {
		body.Before = row.Digest
	}
	entry, err := registry.NewEntry(by.String(), body)
	if err != nil {
		return nil, recordError(err)
	}
	return p.write(ctx, by, entry)
}

// write tests a policy and writes it to the log, from which every node takes it.
func (p *policies) write(ctx context.Context, by identity.Principal, entry audit.Entry) (*policyChange, error) {
	var body registry.PolicyBody
	if err := audit.DecodeBody(entry.Body, &body); err != nil {
		return nil, recordError(err)
	}
	modules, err := unpacked(body)
	if err != nil {
		p.refused(by, err)
		return nil, a2a.Errorf(a2a.CodeInvalidRequest, "%s", err)
	}
	change := &policyChange{Digest: body.Digest, Layer: body.Layer, Tests: authz.TestReport{Failures: []string{}}}
	active := func() string {
		base, additions := p.policy.Layers()
		if body.Layer == registry.LayerAdditions {
			return or(additions, noPolicy)
		}
		return base
	}
	change.Before = active()
	if modules != nil {
		if change.Tests, err = tested(ctx, modules, p.undo(by, body.Layer)...); err != nil {
			p.refused(by, err)
			return nil, err
		}
	}
	if change.Digest == change.Before && body.Before == "" {
		return nil, a2a.Errorf(a2a.CodeInvalidRequest, "this policy is in force already")
	}
	if err := p.admin.write(ctx, by, entry); err != nil {
		return nil, err
	}
	p.activate(ctx)
	change.Active, change.Error = active() == change.Digest, p.problem()
	return change, nil
}

// wanted is the policy that a request names; nil takes the additions away.
func (p *policies) wanted(req httpdoor.PolicyRequest) (map[string]string, error) {
	if req.Layer != registry.LayerBase && req.Layer != registry.LayerAdditions {
		return nil, a2a.Errorf(a2a.CodeInvalidRequest, "layer is empty or %s", registry.LayerAdditions)
	}
	if req.Rollback {
		return p.before(req.Layer)
	}
	if len(req.Modules) == 0 && req.Layer == registry.LayerBase {
		return nil, a2a.Errorf(a2a.CodeInvalidRequest, "the policy has no files")
	}
	return req.Modules, nil
}

// before is the policy that a layer had before the one in force.
func (p *policies) before(layer string) (map[string]string, error) {
	row, err := p.directory.Policy(layer)
	switch {
	case errors.Is(err, registry.ErrNotFound):
		return nil, a2a.Errorf(a2a.CodeInvalidRequest, "the built-in policy is in force, and there was none before it")
	case err != nil:
		return nil, err
	case row.Before != nil:
		return p.bundle(*row.Before)
	case layer == registry.LayerAdditions:
		return nil, nil
	}
	return authz.DefaultModules(), nil
}

// policyBefore is what a rollback would put in force.
type policyBefore struct {
	Modules map[string]string `json:"modules"` // null: additions would be taken away
}

// Before says what a rollback would put in force.
func (p *policies) Before(_ context.Context, layer string) (any, error) {
	modules, err := p.wanted(httpdoor.PolicyRequest{Layer: layer, Rollback: true})
	return policyBefore{modules}, err
}

// tested refuses what is no policy or fails its own tests.
func tested(ctx context.Context, modules map[string]string, must ...authz.Query) (authz.TestReport, error) {
	report, err := authz.Test(ctx, modules, must...)
	if err == nil && len(report.Failures) > 0 {
		err = fmt.Errorf("the policy fails its tests: %s", strings.Join(report.Failures, "; "))
	}
	if err != nil {
		return report, &a2a.Error{Code: a2a.CodeInvalidRequest, Message: err.Error(), Hint: "agenticraft policy test DIR shows it without a cluster"}
	}
	return report, nil
}

// undo is what whoever changes the base must still be allowed under it: to change
// it again. A policy that denies it to all could never be rolled back.
func (p *policies) undo(by identity.Principal, layer string) []authz.Query {
	if layer != registry.LayerBase {
		return nil
	}
	return []authz.Query{{
		Principal: by, Action: authz.PolicyApply, Tenant: by.Tenant, Suspended: p.directory.Suspended(by.Tenant), Ceiling: p.directory.Ceiling(by.Tenant),
		Via: server.DoorHTTP, Now: time.Now(), Vouched: by.Kind != identity.Agent,
	}}
}

// refused notes a policy that was sent to be applied and is none: in the log that
// it was, in this node's own log why.
func (p *policies) refused(by identity.Principal, err error) {
	p.log.Warn("a policy was refused", "by", by.String(), "err", err)
	p.admin.denied(by, authz.PolicyApply, "bad_policy", "", authz.Decision{})
}

// Explain says why a request would be allowed or denied.
func (p *policies) Explain(ctx context.Context, by identity.Principal, req httpdoor.ExplainRequest) (any, error) {
	query := req.Question.Query()
	if req.Principal != "" {
		found, err := p.admin.principal(or(req.Question.Tenant, by.Tenant), req.Principal)
		if err != nil {
			return nil, err
		}
		found.Roles = slices.Concat(found.Roles, req.Question.Roles)
		query.Principal = found
	}
	tenant := or(query.Tenant, query.Principal.Tenant)
	if _, err := p.directory.Tenant(tenant); err == nil {
		query.Suspended = query.Suspended || p.directory.Suspended(tenant)
	}
	if query.Ceiling = p.directory.Ceiling(tenant); len(req.Question.Ceiling.Network) > 0 {
		query.Ceiling.Network = req.Question.Ceiling.Network
	}
	e, err := p.policy.Explain(ctx, query)
	if err != nil {
		return nil, a2a.Errorf(a2a.CodeInvalidRequest, "%s", err)
	}
	return e, nil
}

func or(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}
