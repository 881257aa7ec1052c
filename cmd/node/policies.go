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

	"github.com/agenticraft/node/a2a"
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

	mu     sync.Mutex // one activation at a time; guards what follows
	failed error      // why the policy that the log says is not in force here
}

// activate puts the policy that the log says in force. One that does not pass
// its tests here is not, and the old one stays.
func (p *policies) activate(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	row, err := p.directory.Policy()
	if errors.Is(err, registry.ErrNotFound) {
		return // the built-in one
	}
	if err == nil && row.Digest != p.policy.Digest() {
		var modules map[string]string
		if modules, err = p.bundle(row.Since); err == nil {
			err = p.policy.Replace(ctx, modules)
		}
	}
	if p.failed = err; err != nil {
		p.log.ErrorContext(ctx, "policy not activated, the one before stays in force", "wanted", row.Digest, "active", p.policy.Digest(), "err", err)
	}
}

// problem is why the policy that the log says is not in force here.
func (p *policies) problem() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failed == nil {
		return ""
	}
	return p.failed.Error()
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
	packed, err := base64.StdEncoding.DecodeString(body.Bundle)
	if err != nil {
		return nil, err
	}
	modules, err := authz.Unpack(packed)
	if err == nil && authz.Digest(modules) != body.Digest {
		err = fmt.Errorf("entry %d: the bundle is not the one it names", index)
	}
	return modules, err
}

// policyChange is what `policy apply` answers.
type policyChange struct {
	Digest string           `json:"digest"`
	Before string           `json:"before"`
	Tests  authz.TestReport `json:"tests"`
	Active bool             `json:"active"` // on the node that answers
	Error  string           `json:"error,omitempty"`
}

// Apply tests a policy and writes it to the log, from which every node takes it.
func (p *policies) Apply(ctx context.Context, by identity.Principal, req httpdoor.PolicyRequest) (any, error) {
	modules, err := p.wanted(req)
	if err != nil {
		return nil, err
	}
	change := policyChange{Before: p.policy.Digest()}
	if change.Tests, err = tested(ctx, modules); err != nil {
		return nil, err
	}
	change.Digest = change.Tests.Digest
	packed, err := authz.Pack(modules)
	if err != nil {
		return nil, a2a.Errorf(a2a.CodeInvalidRequest, "%s", err)
	}
	body := registry.PolicyBody{Action: registry.Apply, Digest: change.Digest, Bundle: base64.StdEncoding.EncodeToString(packed)}
	if row, err := p.directory.Policy(); err == nil {
		body.Before = row.Digest
	}
	if change.Digest == change.Before && body.Before == "" {
		return nil, a2a.Errorf(a2a.CodeInvalidRequest, "this policy is in force already")
	}
	if err := record(ctx, p.admin, by, body); err != nil {
		return nil, err
	}
	p.activate(ctx)
	change.Active, change.Error = p.policy.Digest() == change.Digest, p.problem()
	return change, nil
}

// wanted is the policy that a request names.
func (p *policies) wanted(req httpdoor.PolicyRequest) (map[string]string, error) {
	if !req.Rollback {
		if len(req.Modules) == 0 {
			return nil, a2a.Errorf(a2a.CodeInvalidRequest, "the policy has no files")
		}
		return req.Modules, nil
	}
	row, err := p.directory.Policy()
	if errors.Is(err, registry.ErrNotFound) {
		return nil, a2a.Errorf(a2a.CodeInvalidRequest, "the built-in policy is in force, and there was none before it")
	}
	if err != nil {
		return nil, err
	}
	if row.Before == nil {
		return authz.DefaultModules(), nil
	}
	return p.bundle(*row.Before)
}

// tested refuses what is no policy or fails its own tests.
func tested(ctx context.Context, modules map[string]string) (authz.TestReport, error) {
	report, err := authz.Test(ctx, modules)
	if err == nil && len(report.Failures) > 0 {
		err = fmt.Errorf("the policy fails its own tests: %s", strings.Join(report.Failures, "; "))
	}
	if err != nil {
		return report, &a2a.Error{Code: a2a.CodeInvalidRequest, Message: err.Error(), Hint: "agenticraft policy test DIR shows it without a cluster"}
	}
	return report, nil
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
