package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/authz"
	httpdoor "github.com/agenticraft/node/bridges/http"
	"github.com/agenticraft/node/registry"
)

func (a *app) keyCommand() *cobra.Command {
	var name, role, tenant, expires, overlap string
	var scopes []string
	create := &cobra.Command{
		Use: "create --name NAME --role ROLE", Short: "Create an API key; its text is shown once", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if name == "" || role == "" {
				return usage("key create needs --name and --role")
			}
			p, err := a.proposer(cmd.Context())
			if err != nil {
				return err
			}
			until, err := expiry(expires, time.Now())
			if err != nil {
				return err
			}
			of, err := p.tenant(cmd.Context(), tenant)
			if err != nil {
				return err
			}
			// The secret is made here: no node ever sees it before its first use.
			text, id, hash, err := authz.NewAPIKey()
			if err != nil {
				return err
			}
			_, err = propose(cmd.Context(), p, audit.KindKey, registry.KeyBody{
				Action: registry.Create, ID: id, Name: name, Hash: hex.EncodeToString(hash[:]), Tenant: of, Roles: []string{role}, Scopes: scopes, Expires: until,
			})
			return a.printKey(httpdoor.CreatedKey{ID: id, Name: name, Role: role, Key: text}, err)
		},
	}
	create.Flags().StringVar(&name, "name", "", "what you call it")
	create.Flags().StringVar(&role, "role", "", "viewer, runner, delegator, operator, auditor or admin")
	create.Flags().StringVar(&tenant, "tenant", "", "tenant (default: your own)")
	create.Flags().StringVar(&expires, "expires", "", "lifetime such as 720h, or an RFC 3339 time (default: never)")
	create.Flags().StringSliceVar(&scopes, "scope", nil, "actions that it is for, such as exec.run or task.* (default: all of its role)")
	rotate := &cobra.Command{
		Use: "rotate ID|NAME [--overlap D]", Short: "Replace an API key's secret; the new text is shown once", Args: exactArgs("ID|NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := a.proposer(cmd.Context())
			if err != nil {
				return err
			}
			until, err := expiry(overlap, time.Now())
			if err != nil {
				return err
			}
			old, err := p.ownKey(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			text, hash, err := authz.RotateAPIKey(old.ID)
			if err != nil {
				return err
			}
			_, err = propose(cmd.Context(), p, audit.KindKey, registry.KeyBody{Action: registry.Rotate, ID: old.ID, Hash: hex.EncodeToString(hash[:]), Until: until})
			return a.printKey(httpdoor.CreatedKey{ID: old.ID, Name: old.Name, Role: strings.Join(old.Roles, ","), Key: text}, err)
		},
	}
	rotate.Flags().StringVar(&overlap, "overlap", "", "how long the old secret goes on, such as 24h (default: it ends now)")
	revoke := &cobra.Command{
		Use: "revoke ID|NAME", Short: "Revoke an API key", Args: exactArgs("ID|NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := a.proposer(cmd.Context())
			if err != nil {
				return err
			}
			old, err := p.ownKey(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			_, err = propose(cmd.Context(), p, audit.KindKey, registry.KeyBody{Action: registry.Revoke, ID: old.ID})
			return a.printDone("revoked: "+args[0], map[string]string{"revoked": args[0]}, err)
		},
	}
	return group("key", "Manage API keys", create, a.listing("List API keys", "/v1/keys", "name", "id", "tenant", "roles"), rotate, revoke)
}

// ownKey finds an API key by id, or by its name in the caller's tenant.
func (p *proposer) ownKey(ctx context.Context, text string) (keyView, error) {
	tenant, err := p.tenant(ctx, "")
	if err != nil {
		return keyView{}, err
	}
	return p.key(ctx, tenant, text)
}

func (a *app) printKey(created httpdoor.CreatedKey, err error) error {
	if err != nil {
		return err
	}
	if a.json {
		a.print(created)
		return nil
	}
	fmt.Fprintln(a.stdout, created.Key)
	fmt.Fprintf(a.stderr, "agenticraft: key %s (%s, %s); it is not shown again\n", created.ID, created.Name, created.Role)
	return nil
}

// printDone prints what was done: a line for people, or done as JSON.
func (a *app) printDone(line string, done any, err error) error {
	switch {
	case err != nil:
		return err
	case a.json:
		a.print(done)
	default:
		fmt.Fprintln(a.stdout, line)
	}
	return nil
}
