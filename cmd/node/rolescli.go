package main

import (
	"slices"

	"github.com/spf13/cobra"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/registry"
)

func (a *app) roleCommand() *cobra.Command {
	var tenant string
	change := func(action, short string) *cobra.Command {
		cmd := &cobra.Command{
			Use: action + " PRINCIPAL ROLE", Short: short, Args: exactArgs("PRINCIPAL", "ROLE"),
			RunE: func(cmd *cobra.Command, args []string) error {
				p, err := a.proposer(cmd.Context())
				if err != nil {
					return err
				}
				of, err := p.tenant(cmd.Context(), tenant)
				if err != nil {
					return err
				}
				who, err := p.principal(cmd.Context(), of, args[0])
				if err != nil {
					return err
				}
				_, err = propose(cmd.Context(), p, audit.KindRole, registry.RoleBody{Action: action, Principal: who.String(), Role: args[1], Tenant: who.Tenant})
				if err != nil {
					return err
				}
				roles := slices.DeleteFunc(slices.Clone(who.Roles), func(r string) bool { return r == args[1] })
				if action == registry.Grant {
					roles = slices.Sorted(slices.Values(append(roles, args[1])))
				}
				a.print(roleView{Principal: who.String(), Tenant: who.Tenant, Roles: roles})
				return nil
			},
		}
		cmd.Flags().StringVar(&tenant, "tenant", "", "where PRINCIPAL is a name (default: your own tenant)")
		return cmd
	}
	return group("role", "Give and take roles",
		change(registry.Grant, "Give a role to an agent or API key"),
		change(registry.Revoke, "Take a role from an agent or API key"),
		a.listing("List who holds which roles", "/v1/roles", "name", "tenant", "roles", "principal"))
}
