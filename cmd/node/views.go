package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	natsdoor "github.com/agenticraft/node/bridges/nats"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/sandbox"
)

// nodeView is one node as `nodes` lists it.
type nodeView struct {
	ID        identity.ID         `json:"id"`
	Role      string              `json:"role"`
	Name      string              `json:"name,omitempty"`
	Self      bool                `json:"self"`
	Connected bool                `json:"connected"`
	Leader    bool                `json:"leader"`
	Address   string              `json:"address,omitempty"`
	RTTMS     float64             `json:"rtt_ms,omitempty"`
	Runs      bool                `json:"runs"` // takes executions
	Sandboxes map[string][]string `json:"sandboxes,omitempty"`
	Slots     int                 `json:"slots,omitempty"`
	Busy      int                 `json:"busy"`
	Queued    int                 `json:"queued"`
	LastError string              `json:"last_error,omitempty"`
}

// statusView is what `status` shows.
type statusView struct {
	ID         identity.ID   `json:"id"`
	Cluster    string        `json:"cluster"`
	Version    string        `json:"version"`
	Ready      bool          `json:"ready"`
	NotReady   string        `json:"not_ready,omitempty"`
	Role       string        `json:"role"`
	Leader     identity.ID   `json:"leader,omitempty"`
	Term       uint64        `json:"term"`
	Keepers    []identity.ID `json:"keepers"`
	Quorum     int           `json:"quorum"`
	Epoch      uint64        `json:"epoch"`     // counts changes of keepers
	Witnesses  []witnessView `json:"witnesses"` // auditors, as this keeper heard them
	LogSize    uint64        `json:"log_size"`
	LogRoot    string        `json:"log_root"`
	Checkpoint uint64        `json:"checkpoint_size"`
	Policy     string        `json:"policy"` // digest of the one in force here
	// PolicyError is why the policy that the log says is not.
	PolicyError string  `json:"policy_error,omitempty"`
	Slots       int     `json:"slots"`
	Busy        int     `json:"busy"`
	Queued      int     `json:"queued"`
	UptimeSec   float64 `json:"uptime_s"`
	// NATS is how the NATS door is, if the node has one.
	NATS *natsdoor.Status `json:"nats,omitempty"`
}

// witnessView is how much of the log an auditor has countersigned.
type witnessView struct {
	ID   identity.ID `json:"id"`
	Size uint64      `json:"size"`
}

// policyView is what `policy show` shows.
type policyView struct {
	Digest    string            `json:"digest"` // of all that is in force, as decisions bear it
	Modules   map[string]string `json:"modules"`
	Base      string            `json:"base"`                // digest of the base
	Additions string            `json:"additions,omitempty"` // digest of the operators' additions
	Added     map[string]string `json:"added,omitempty"`     // their files
	// Before is what the log says of each layer, which whoever changes it names:
	// the digest, or "" while there was no change.
	Before map[string]string `json:"before"`
}

func (a *app) nodesCommand() *cobra.Command {
	return &cobra.Command{
		Use: "nodes", Short: "List the cluster's nodes", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var out struct {
				Nodes []nodeView `json:"nodes"`
			}
			if err := a.fetch(cmd.Context(), "/v1/nodes", &out); err != nil {
				return err
			}
			if a.json {
				a.print(out)
				return nil
			}
			for _, n := range out.Nodes {
				state := "connected"
				switch {
				case n.Self:
					state = "this node"
				case !n.Connected:
					state = "unreachable"
				}
				leader := ""
				if n.Leader {
					leader = " (leader)"
				}
				fmt.Fprintf(a.stdout, "%s  %-8s %-12s %d/%d busy  %s%s\n", n.ID, n.Role, state, n.Busy, n.Slots, strings.Join(n.languages(), ","), leader)
			}
			return nil
		},
	}
}

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show how the node and its cluster are", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var s statusView
			if err := a.fetch(cmd.Context(), "/v1/status", &s); err != nil {
				return err
			}
			if a.json {
				a.print(s)
				return nil
			}
			ready := "ready"
			if !s.Ready {
				ready = "not ready: " + s.NotReady
			}
			fmt.Fprintf(a.stdout, "node      %s (%s)\ncluster   %s, %s\n", s.ID, s.Role, s.Cluster, ready)
			fmt.Fprintf(a.stdout, "leader    %s, term %d, quorum %d of %d keepers\n", cmp.Or(string(s.Leader), "none"), s.Term, s.Quorum, len(s.Keepers))
			fmt.Fprintf(a.stdout, "log       %d entries, %d of them under a quorum's checkpoint\n", s.LogSize, s.Checkpoint)
			if s.PolicyError != "" {
				fmt.Fprintf(a.stdout, "policy    not the one that the log says: %s\n", s.PolicyError)
			}
			fmt.Fprintf(a.stdout, "policy    %s\nsandbox   %d of %d slots busy, %d waiting\n", s.Policy, s.Busy, s.Slots, s.Queued)
			if s.NATS != nil {
				fmt.Fprintf(a.stdout, "nats      %s\n", natsFinding(*s.NATS).Detail)
			}
			fmt.Fprintf(a.stdout, "up        %v\n", time.Duration(s.UptimeSec*float64(time.Second)).Round(time.Second))
			return nil
		},
	}
}

func (a *app) sandboxCommand() *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "List the node's sandboxes and what enforces each limit", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var out struct {
				Sandboxes []sandbox.Description `json:"sandboxes"`
			}
			if err := a.fetch(cmd.Context(), "/v1/sandboxes", &out); err != nil {
				return err
			}
			if a.json {
				a.print(out)
				return nil
			}
			for _, d := range out.Sandboxes {
				if !d.Available {
					fmt.Fprintf(a.stdout, "%-12s unavailable: %s\n", d.Name, d.Reason)
					if d.Hint != "" {
						fmt.Fprintf(a.stdout, "%-12s %s\n", "", d.Hint)
					}
					continue
				}
				fmt.Fprintf(a.stdout, "%-12s %s  %s\n", d.Name, d.Tier, strings.Join(d.Languages, ", "))
				for _, limit := range sortedKeys(d.Enforces) {
					fmt.Fprintf(a.stdout, "%-12s   %-12s by %s\n", "", limit, d.Enforces[limit])
				}
			}
			return nil
		},
	}
	return group("sandbox", "Look at the sandboxes", list, a.sandboxProbeCommand(), a.sandboxBenchCommand())
}

func (a *app) trustCommand() *cobra.Command {
	export := &cobra.Command{
		Use: "export", Short: "Print the trust file that verification needs", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var trust json.RawMessage
			if err := a.fetch(cmd.Context(), "/v1/trust", &trust); err != nil {
				return err
			}
			a.print(trust)
			return nil
		},
	}
	return group("trust", "Export whom to trust", export)
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			v := buildVersion()
			if a.json {
				a.print(v)
				return nil
			}
			fmt.Fprintf(a.stdout, "agenticraft %s (%s)\n", v.Version, v.Go)
			return nil
		},
	}
}
