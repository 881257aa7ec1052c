package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/registry"
)

func (a *app) agentCommand() *cobra.Command {
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
	return group("agent", "Manage agents", newKey, a.agentAddCommand(),
		a.listing("List agents", "/v1/agents", "name", "tenant", "roles", "id"), a.agentRotateCommand(),
		a.agentChange("suspend", "Bar an agent for a while, and cancel what it runs", registry.Suspend, "suspended"),
		a.agentChange("resume", "Let a suspended agent work again", registry.Resume, "resumed"),
		a.agentChange("revoke", "Revoke an agent for good", registry.Revoke, "revoked"))
}

func (a *app) agentAddCommand() *cobra.Command {
	var name, role, tenant string
	var labels []string
	add := &cobra.Command{
		Use: "add --name NAME --role ROLE (ID | --agent-key FILE)", Short: "Register an agent's public key", Args: firstArgs(0, "ID"),
		Long: `Register an agent's public key: its ID, or the ID of its key file. With an ID,
--agent-key is the admin's own key, which signs the registration.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if name == "" || role == "" {
				return usage("agent add needs --name and --role")
			}
			if len(args) == 0 && a.agentKey == "" {
				return usage("agent add needs the agent's ID, or its key file as --agent-key")
			}
			var id identity.ID
			if len(args) == 1 {
				var err error
				if id, err = agentID(args[0]); err != nil {
					return err
				}
			} else {
				key, err := identity.Load(a.agentKey)
				if err != nil {
					return err
				}
				id, a.agentKey = key.ID(), "" // the admin's credential asks, not the new agent
			}
			set := map[string]string{}
			for _, l := range labels {
				k, v, ok := strings.Cut(l, "=")
				if !ok {
					return usage("--label %q is not KEY=VALUE", l)
				}
				set[k] = v
			}
			p, err := a.proposer(cmd.Context())
			if err != nil {
				return err
			}
			of, err := p.tenant(cmd.Context(), tenant)
			if err != nil {
				return err
			}
			_, err = propose(cmd.Context(), p, audit.KindAgent, registry.AgentBody{Action: registry.Add, ID: id, Name: name, Tenant: of, Roles: []string{role}, Labels: set})
			if err != nil {
				return err
			}
			a.print(map[string]string{"id": string(id), "did": id.DID(), "name": name, "role": role, "tenant": of})
			return nil
		},
	}
	add.Flags().StringVar(&name, "name", "", "what you call it")
	add.Flags().StringVar(&role, "role", "", "viewer, runner, delegator, operator, auditor or admin")
	add.Flags().StringVar(&tenant, "tenant", "", "tenant (default: your own)")
	add.Flags().StringArrayVar(&labels, "label", nil, "KEY=VALUE (may be repeated)")
	return add
}

func (a *app) agentRotateCommand() *cobra.Command {
	var overlap, tenant string
	rotate := &cobra.Command{
		Use: "rotate ID|NAME NEW-ID [--overlap D]", Short: "Put another key in an agent's place: it takes name, roles and labels", Args: exactArgs("ID|NAME", "NEW-ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			to, err := agentID(args[1])
			if err != nil {
				return err
			}
			until, err := expiry(overlap, time.Now())
			if err != nil {
				return err
			}
			p, err := a.proposer(cmd.Context())
			if err != nil {
				return err
			}
			of, err := p.tenant(cmd.Context(), tenant)
			if err != nil {
				return err
			}
			old, err := p.agent(cmd.Context(), of, args[0])
			if err != nil {
				return err
			}
			_, err = propose(cmd.Context(), p, audit.KindAgent, registry.AgentBody{Action: registry.Rotate, ID: old.ID, To: to, Until: until})
			line := fmt.Sprintf("rotated: %s is %s now; %s ", old.Name, to, old.ID)
			if until == "" {
				line += "is no longer taken"
			} else {
				line += "goes on until " + until
			}
			return a.printDone(line, map[string]string{"id": string(to), "did": to.DID(), "name": old.Name, "before": string(old.ID), "until": until}, err)
		},
	}
	rotate.Flags().StringVar(&overlap, "overlap", "", "how long the old key goes on, such as 24h (default: it ends now)")
	rotate.Flags().StringVar(&tenant, "tenant", "", "where NAME is looked up (default: your own tenant)")
	return rotate
}

func (a *app) agentChange(verb, short, action, done string) *cobra.Command {
	var tenant string
	cmd := &cobra.Command{
		Use: verb + " ID|NAME", Short: short, Args: exactArgs("ID|NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := a.proposer(cmd.Context())
			if err != nil {
				return err
			}
			of, err := p.tenant(cmd.Context(), tenant)
			if err != nil {
				return err
			}
			agent, err := p.agent(cmd.Context(), of, args[0])
			if err != nil {
				return err
			}
			_, err = propose(cmd.Context(), p, audit.KindAgent, registry.AgentBody{Action: action, ID: agent.ID})
			return a.printDone(fmt.Sprintf("%s: %s (%s)", done, agent.Name, agent.ID), map[string]string{done: args[0]}, err)
		},
	}
	cmd.Flags().StringVar(&tenant, "tenant", "", "where NAME is looked up (default: your own tenant)")
	return cmd
}
