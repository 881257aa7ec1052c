package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	httpdoor "github.com/agenticraft/node/bridges/http"
	"github.com/agenticraft/node/identity"
)

func (a *app) keyCommand() *cobra.Command {
	var req httpdoor.KeyRequest
	create := &cobra.Command{
		Use: "create --name NAME --role ROLE", Short: "Create an API key; its text is shown once", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if req.Name == "" || req.Role == "" {
				return usage("key create needs --name and --role")
			}
			return a.createdKey(cmd, "/v1/keys", req)
		},
	}
	create.Flags().StringVar(&req.Name, "name", "", "what you call it")
	create.Flags().StringVar(&req.Role, "role", "", "viewer, runner, delegator, operator, auditor or admin")
	create.Flags().StringVar(&req.Tenant, "tenant", "", "tenant (default: your own)")
	create.Flags().StringVar(&req.Expires, "expires", "", "lifetime such as 720h, or an RFC 3339 time (default: never)")
	rotate := &cobra.Command{
		Use: "rotate ID|NAME", Short: "Replace an API key's secret; the new text is shown once", Args: exactArgs("ID|NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.createdKey(cmd, "/v1/keys/"+url.PathEscape(args[0])+"/rotate", nil)
		},
	}
	return group("key", "Manage API keys", create,
		a.listing("list", "List API keys", "/v1/keys"), rotate,
		a.revoking("revoke ID|NAME", "Revoke an API key", "/v1/keys/"))
}

func (a *app) createdKey(cmd *cobra.Command, path string, body any) error {
	door, err := a.api()
	if err != nil {
		return err
	}
	var created httpdoor.CreatedKey
	if err := door.do(cmd.Context(), "POST", path, body, &created); err != nil {
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

func (a *app) agentCommand() *cobra.Command {
	var req httpdoor.AgentRequest
	var labels []string
	add := &cobra.Command{
		Use: "add --name NAME --role ROLE (ID | --agent-key FILE)", Short: "Register an agent's public key", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if req.Name == "" || req.Role == "" {
				return usage("agent add needs --name and --role")
			}
			if (len(args) == 0) == (a.agentKey == "") {
				return usage("agent add needs the agent's ID, or its key file as --agent-key")
			}
			if len(args) == 1 {
				req.ID = args[0]
			} else {
				key, err := identity.Load(a.agentKey)
				if err != nil {
					return err
				}
				req.ID, a.agentKey = string(key.ID()), "" // the admin's credential asks, not the new agent
			}
			req.Labels = map[string]string{}
			for _, l := range labels {
				k, v, ok := strings.Cut(l, "=")
				if !ok {
					return usage("--label %q is not KEY=VALUE", l)
				}
				req.Labels[k] = v
			}
			door, err := a.api()
			if err != nil {
				return err
			}
			var added json.RawMessage
			if err := door.do(cmd.Context(), "POST", "/v1/agents", req, &added); err != nil {
				return err
			}
			a.print(added)
			return nil
		},
	}
	add.Flags().StringVar(&req.Name, "name", "", "what you call it")
	add.Flags().StringVar(&req.Role, "role", "", "viewer, runner, delegator, operator, auditor or admin")
	add.Flags().StringVar(&req.Tenant, "tenant", "", "tenant (default: your own)")
	add.Flags().StringArrayVar(&labels, "label", nil, "KEY=VALUE (may be repeated)")
	newKey := &cobra.Command{
		Use: "keygen FILE", Short: "Make a new agent key file and print its ID", Args: exactArgs("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			key, err := identity.Generate()
			if err != nil {
				return err
			}
			if err := key.Save(args[0]); err != nil {
				return err
			}
			if a.json {
				a.print(map[string]string{"id": string(key.ID()), "did": key.ID().DID()})
				return nil
			}
			fmt.Fprintln(a.stdout, key.ID())
			return nil
		},
	}
	return group("agent", "Manage agents", newKey, add,
		a.listing("list", "List agents", "/v1/agents"),
		a.revoking("revoke ID|NAME", "Revoke an agent", "/v1/agents/"))
}

// listing prints the JSON list at path; for people one line an item.
func (a *app) listing(use, short, path string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var out map[string][]map[string]any
			if err := a.fetch(cmd.Context(), path, &out); err != nil {
				return err
			}
			if a.json {
				a.print(out)
				return nil
			}
			for _, items := range out {
				for _, item := range items {
					var fields []string
					for _, k := range sortedKeys(item) {
						fields = append(fields, fmt.Sprintf("%s=%v", k, item[k]))
					}
					fmt.Fprintln(a.stdout, strings.Join(fields, " "))
				}
			}
			return nil
		},
	}
}

func (a *app) revoking(use, short, path string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: exactArgs("ID|NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			door, err := a.api()
			if err != nil {
				return err
			}
			if err := door.do(cmd.Context(), "DELETE", path+url.PathEscape(args[0]), nil, nil); err != nil {
				return err
			}
			if a.json {
				a.print(map[string]string{"revoked": args[0]})
			}
			return nil
		},
	}
}
