package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/authz/destination"
	"github.com/agenticraft/node/authz/mandate"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/registry"
)

// mandateFlags are the terms of a block.
type mandateFlags struct {
	to, cluster, tenant, memory string
	actions, languages, network []string
	runs                        int64
	wall, timeout, expires      time.Duration
	depth                       int
}

func (a *app) mandateCommand() *cobra.Command {
	var f mandateFlags
	grant := &cobra.Command{
		Use: "grant --agent-key FILE --to ID --lang L,…", Short: "Let another agent act on this agent's behalf", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			key, to, terms, err := a.mandateTerms(f)
			if err != nil {
				return err
			}
			if len(f.languages) == 0 {
				return usage("a mandate names what may be run: give --lang, such as --lang python,starlark")
			}
			a.agentKey = "" // the context's credential asks, the agent only signs
			if f.tenant == "" {
				var me identity.Principal
				if err := a.fetch(cmd.Context(), "/v1/whoami", &me); err != nil {
					return err
				}
				f.tenant = me.Tenant
			}
			if f.cluster == "" {
				var s statusView
				if err := a.fetch(cmd.Context(), "/v1/status", &s); err != nil {
					return err
				}
				f.cluster = s.Cluster
			}
			if len(terms.Actions) == 0 {
				terms.Actions = []string{"exec.run"}
			}
			if terms.NotAfter.IsZero() {
				terms.NotAfter = time.Now().Add(time.Hour)
			}
			text, err := mandate.Grant(key, mandate.Root{Cluster: a2a.Audience(f.cluster), Tenant: f.tenant, To: to, Terms: terms})
			return a.printMandate(text, err)
		},
	}
	narrow := &cobra.Command{
		Use: "narrow FILE --agent-key FILE --to ID", Short: "Hand a mandate on, or a part of it", Args: exactArgs("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			key, to, terms, err := a.mandateTerms(f)
			if err != nil {
				return err
			}
			parent, err := a.source(args[0])
			if err != nil {
				return err
			}
			text, err := mandate.Narrow(key, strings.TrimSpace(string(parent)), to, terms)
			return a.printMandate(text, err)
		},
	}
	for _, cmd := range []*cobra.Command{grant, narrow} {
		flags := cmd.Flags()
		flags.StringVar(&f.to, "to", "", "the holder: a peer ID or did:key")
		flags.StringSliceVar(&f.actions, "action", nil, "actions (default: exec.run, or as before)")
		flags.StringSliceVar(&f.languages, "lang", nil, "languages that may be run")
		flags.StringSliceVar(&f.network, "network", nil, "HOST:PORT,… that runs may reach, patterns allowed; none (default: none, or as before)")
		flags.StringVar(&f.memory, "memory", "", "memory of one run, at most, such as 256MiB")
		flags.DurationVar(&f.timeout, "timeout", 0, "time of one run, at most")
		flags.Int64Var(&f.runs, "runs", 0, "how many runs in all (default: not counted, or as before)")
		flags.DurationVar(&f.wall, "wall", 0, "sum of the runs' time limits (default: not counted, or as before)")
		flags.IntVar(&f.depth, "depth", 0, "how often the holder may hand it on, at most 4")
		flags.DurationVar(&f.expires, "expires", 0, "lifetime (default: 1h, or as before)")
	}
	grant.Flags().StringVar(&f.tenant, "tenant", "", "the tenant of both agents (default: ask the server for your own)")
	grant.Flags().StringVar(&f.cluster, "cluster", "", "the cluster's name (default: ask the server)")
	show := &cobra.Command{
		Use: "show FILE", Short: "Check a mandate's chain offline and print what it grants", Args: exactArgs("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			text, err := a.source(args[0])
			if err != nil {
				return err
			}
			return a.showMandate(strings.TrimSpace(string(text)))
		},
	}
	return group("mandate", "Act on somebody else's behalf", grant, narrow, show, a.mandateRevokeCommand())
}

func (a *app) mandateTerms(f mandateFlags) (*identity.Key, identity.ID, mandate.Terms, error) {
	terms := mandate.Terms{
		Actions: f.actions, Languages: f.languages, Depth: f.depth,
		Budget: mandate.Budget{Runs: f.runs, WallMS: f.wall.Milliseconds()},
		Limits: mandate.Limits{TimeoutMS: f.timeout.Milliseconds()},
	}
	for _, text := range f.network {
		if terms.Network == nil {
			terms.Network = []string{}
		}
		if text == destination.None && len(f.network) == 1 {
			break
		}
		pattern, err := destination.ParsePattern(text)
		if err != nil {
			return nil, "", terms, usage("--network: %v", err)
		}
		terms.Network = append(terms.Network, pattern)
	}
	if a.agentKey == "" {
		return nil, "", terms, usage("a mandate is signed with an agent's key: give --agent-key FILE")
	}
	to, err := agentID(f.to)
	if err != nil {
		return nil, "", terms, usage("--to: %v; agenticraft agent list shows them", err)
	}
	if f.memory != "" {
		if terms.Limits.MemoryBytes, err = parseBytes(f.memory); err != nil {
			return nil, "", terms, usage("--memory: %v", err)
		}
	}
	if f.expires != 0 {
		terms.NotAfter = time.Now().Add(f.expires)
	}
	key, err := identity.Load(a.agentKey)
	return key, to, terms, err
}

func (a *app) printMandate(text string, err error) error {
	if err != nil {
		return failed("%v", err)
	}
	if a.json {
		a.print(map[string]string{"mandate": text})
		return nil
	}
	fmt.Fprintln(a.stdout, text)
	return nil
}

// mandateView is a mandate as `mandate show` prints it.
type mandateView struct {
	Root      string          `json:"root"`
	Holder    string          `json:"holder"`
	Cluster   string          `json:"cluster"`
	Tenant    string          `json:"tenant"`
	Actions   []string        `json:"actions"`
	Languages []string        `json:"languages"`
	Network   []string        `json:"network,omitempty"`
	Limits    mandate.Limits  `json:"limits"`
	Depth     int             `json:"depth"`
	NotAfter  time.Time       `json:"not_after"`
	Blocks    []mandateBlocks `json:"blocks"`
}

type mandateBlocks struct {
	ID     string         `json:"id"`
	By     string         `json:"by"`
	To     string         `json:"to"`
	Budget mandate.Budget `json:"budget"`
}

func (a *app) showMandate(text string) error {
	cluster, err := mandate.Cluster(text)
	if err != nil {
		return failed("%v", err)
	}
	v, err := mandate.Verify(text, mandate.Options{Cluster: cluster})
	if err != nil {
		return &a2a.Error{Code: "unverified", Message: err.Error()}
	}
	view := mandateView{
		Root: v.Root.DID(), Holder: v.Holder.DID(), Cluster: cluster, Tenant: v.Tenant,
		Actions: v.Terms.Actions, Languages: v.Terms.Languages, Network: v.Terms.Network, Limits: v.Terms.Limits, Depth: v.Terms.Depth, NotAfter: v.Terms.NotAfter.UTC(),
	}
	for _, l := range v.Chain {
		view.Blocks = append(view.Blocks, mandateBlocks{l.ID, l.By.DID(), l.To.DID(), l.Budget})
	}
	a.print(view)
	return nil
}

func (a *app) mandateRevokeCommand() *cobra.Command {
	var tenant string
	cmd := &cobra.Command{
		Use: "revoke (FILE --agent-key FILE | ID)", Short: "End a mandate, and all that was handed on below it", Args: exactArgs("FILE or ID"),
		Long: `End a mandate, and all that was handed on below it, on every node within a second.

With the mandate's FILE and the agent's key: the block that this key signed.
With a block's ID, as mandate show and the log name it: an admin ends it.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := a.proposer(cmd.Context())
			if err != nil {
				return err
			}
			body := registry.MandateBody{Action: registry.Revoke, ID: args[0]}
			if !mandate.IsBlockID(args[0]) {
				text, err := a.source(args[0])
				if err != nil {
					return err
				}
				if p.door.agent == nil {
					return usage("whoever signed a mandate ends it: give --agent-key FILE; an admin gives the block's ID")
				}
				block, err := mandate.BlockBy(strings.TrimSpace(string(text)), p.door.agent.ID())
				if errors.Is(err, mandate.ErrBroken) {
					return failed("this key signed no block of that mandate: who signed one ends it, or an admin by the block's ID")
				}
				if err != nil {
					return failed("%v", err)
				}
				body.ID, body.Block, body.Tenant = block.ID, base64.StdEncoding.EncodeToString(block.Payload), block.Tenant
			}
			if body.Tenant == "" {
				if body.Tenant, err = p.tenant(cmd.Context(), tenant); err != nil {
					return err
				}
			}
			_, err = propose(cmd.Context(), p, audit.KindMandate, body)
			return a.printDone("revoked: "+body.ID, map[string]string{"revoked": body.ID}, err)
		},
	}
	cmd.Flags().StringVar(&tenant, "tenant", "", "of the mandate, where only its ID is known (default: your own)")
	return cmd
}
