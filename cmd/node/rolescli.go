package main

import (
	"encoding/json"
	"net/url"

	"github.com/spf13/cobra"

	httpdoor "github.com/agenticraft/node/bridges/http"
)

func (a *app) roleCommand() *cobra.Command {
	var tenant string
	change := func(verb, short string) *cobra.Command {
		cmd := &cobra.Command{
			Use: verb + " PRINCIPAL ROLE", Short: short, Args: exactArgs("PRINCIPAL", "ROLE"),
			RunE: func(cmd *cobra.Command, args []string) error {
				return a.change(cmd, "POST", "/v1/roles/"+verb, httpdoor.RoleRequest{Principal: args[0], Role: args[1], Tenant: tenant})
			},
		}
		cmd.Flags().StringVar(&tenant, "tenant", "", "where PRINCIPAL is a name (default: your own tenant)")
		return cmd
	}
	return group("role", "Give and take roles",
		change("grant", "Give a role to an agent or API key"),
		change("revoke", "Take a role from an agent or API key"),
		a.listing("list", "List who holds which roles", "/v1/roles"))
}

func (a *app) tenantCommand() *cobra.Command {
	create := &cobra.Command{
		Use: "create NAME", Short: "Create a tenant", Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.change(cmd, "POST", "/v1/tenants", httpdoor.TenantRequest{Name: args[0]})
		},
	}
	var suspend, resume bool
	set := &cobra.Command{
		Use: "set NAME (--suspend | --resume)", Short: "Suspend a tenant, or let it work again", Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if suspend == resume {
				return usage("tenant set needs one of --suspend and --resume")
			}
			return a.change(cmd, "PATCH", "/v1/tenants/"+url.PathEscape(args[0]), httpdoor.TenantRequest{Suspended: &suspend})
		},
	}
	set.Flags().BoolVar(&suspend, "suspend", false, "refuse its people and cancel what it runs, on every node")
	set.Flags().BoolVar(&resume, "resume", false, "lift the suspension")
	return group("tenant", "Manage tenants", create, a.listing("list", "List tenants", "/v1/tenants"), set)
}

// change makes a change and prints what the node answers.
func (a *app) change(cmd *cobra.Command, method, path string, body any) error {
	door, err := a.api()
	if err != nil {
		return err
	}
	var answer json.RawMessage
	if err := door.do(cmd.Context(), method, path, body, &answer); err != nil {
		return err
	}
	a.print(answer)
	return nil
}
