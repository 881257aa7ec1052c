package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/audit"
	httpdoor "github.com/agenticraft/node/bridges/http"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/internal/durable"
	"github.com/agenticraft/node/mesh"
	"github.com/agenticraft/node/registry"
)

func (a *app) inviteCommand() *cobra.Command {
	var req httpdoor.InviteRequest
	cmd := &cobra.Command{
		Use: "invite", Short: "Let one more node in: prints a one-line token for `agenticraft join`", Args: noArgs,
		Long: `Let one more node in. The token is one line, can be used once, and only until
its end. A worker runs code; a keeper also votes and holds the log; an auditor holds
a copy of the log, countersigns it and runs nothing.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch req.Role {
			case registry.Worker, registry.Keeper, registry.Auditor:
			default:
				return usage("--role %q is none of worker, keeper, auditor", req.Role)
			}
			door, err := a.api(cmd.Context())
			if err != nil {
				return err
			}
			var made httpdoor.Invitation
			if err := door.do(cmd.Context(), "POST", "/v1/invites", req, &made); err != nil {
				return err
			}
			if a.json {
				a.print(made)
				return nil
			}
			fmt.Fprintln(a.stdout, made.Token)
			fmt.Fprintf(a.stderr, "agenticraft: for one %s, until %s; on its machine: agenticraft join TOKEN --data DIR\n", made.Role, made.Expires)
			return nil
		},
	}
	cmd.Flags().StringVar(&req.Role, "role", registry.Worker, "worker, keeper or auditor")
	cmd.Flags().StringVar(&req.Expires, "expires", "", "lifetime such as 1h, or an RFC 3339 time (default 24h, at most 720h)")
	return cmd
}

// joinFlags are the flags of join, as the user wrote them.
type joinFlags struct {
	data, http, name, config string
	mesh                     []string
}

func (a *app) joinCommand() *cobra.Command {
	var f joinFlags
	cmd := &cobra.Command{
		Use: "join TOKEN --data DIR", Short: "Make this machine a node of a running cluster", Args: exactArgs("TOKEN"),
		Long: `Make this machine a node of a running cluster, by a token that ` + "`agenticraft invite`" + `
printed there. It makes the node's folder and fetches the log, verifying every part
of it against a checkpoint that a quorum of keepers signed. Then start the node with
agenticraft serve. TOKEN may be - to read it from standard input.`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.join(cmd.Context(), args[0], f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.data, "data", "", "the node's data folder")
	flags.StringVar(&f.config, "config", "", "YAML configuration file of the node; without it one is written into the data folder")
	flags.StringVar(&f.http, "http", "127.0.0.1:8420", "host:port of the HTTP door")
	flags.StringArrayVar(&f.mesh, "mesh", nil, "multiaddr to listen on for other nodes (may be repeated; default: a free port on loopback; a worker only dials out)")
	flags.StringVar(&f.name, "name", "", "what to call the node")
	return cmd
}

const (
	joinWait  = 6 * time.Second
	joinRetry = 500 * time.Millisecond
)

func (a *app) join(ctx context.Context, text string, f joinFlags) error {
	if text == "-" {
		line, err := io.ReadAll(io.LimitReader(a.stdin, maxToken+1))
		if err != nil {
			return fmt.Errorf("read token: %w", err)
		}
		text = string(line)
	}
	token, err := parseToken(text)
	if err != nil {
		return err
	}
	cfg, err := a.joinConfig(f)
	if err != nil {
		return err
	}
	if err := freshFolder(cfg.Data, token); err != nil {
		return err
	}
	if err := durable.Mkdir(cfg.Data, 0o700); err != nil {
		return err
	}
	unlock, err := lockFolder(cfg.Data)
	if err != nil {
		return err
	}
	defer unlock()
	key, err := loadOrMakeKey(filepath.Join(cfg.Data, nodeKeyFile))
	if err != nil {
		return err
	}
	if err := meshForRole(ctx, cfg, f, token.Role); err != nil {
		return err
	}
	answer, err := knock(ctx, token, key, f.name, announced(cfg, token.Role))
	if err != nil {
		return err
	}
	if audit.OriginOf([]byte(answer.Genesis)) != token.Origin {
		return failed("the keeper answered for another cluster than the token's; nothing was joined")
	}
	if err := writePeers(cfg.Data, answer.Peers); err != nil {
		return err
	}
	if err := durable.WriteFile(filepath.Join(cfg.Data, genesisFile), []byte(answer.Genesis), 0o644); err != nil {
		return err
	}
	began := time.Now()
	size, root, err := fetchLog(ctx, cfg.Data, token, key, answer)
	if err != nil {
		return &a2a.Error{
			Code: "unavailable", Message: "the node is a member now, but the log could not be fetched: " + err.Error(),
			Hint: "run the same agenticraft join again to go on",
		}
	}
	took := time.Since(began)
	config := f.config
	if config == "" {
		if config, err = writeJoinConfig(cfg, f); err != nil {
			return err
		}
	}
	made := map[string]any{
		"id": key.ID(), "cluster": token.Cluster, "role": token.Role, "data": cfg.Data, "config": config,
		"log_size": size, "log_root": root.String(), "fetched_ms": took.Milliseconds(),
	}
	if a.json {
		a.print(made)
		return nil
	}
	fmt.Fprintf(a.stdout, "node %s is a %s of the cluster %s\n", key.ID(), token.Role, token.Cluster)
	fmt.Fprintf(a.stdout, "log       %d entries, fetched and verified in %v\n", size, took.Round(time.Millisecond))
	fmt.Fprintf(a.stdout, "Start it: %s serve --config %s\n", os.Args[0], config)
	return nil
}

// joinConfig is the node's configuration, from a file or from the flags.
func (a *app) joinConfig(f joinFlags) (*config, error) {
	given := map[string]string{}
	if f.data != "" {
		data, err := filepath.Abs(f.data)
		if err != nil {
			return nil, fmt.Errorf("data folder: %w", err)
		}
		given["data"] = data
	}
	if f.config == "" {
		if f.data == "" {
			return nil, usage("join needs --data DIR, or --config FILE that names it")
		}
		given["http"] = f.http
	}
	if len(f.mesh) > 0 {
		given["mesh"] = ""
		for i, addr := range f.mesh {
			if i > 0 {
				given["mesh"] += ","
			}
			given["mesh"] += addr
		}
	}
	return loadConfig(f.config, given, a.env)
}

// freshFolder refuses a folder that is something else already. One of the same
// cluster may be a join that was interrupted.
func freshFolder(data string, token inviteToken) error {
	leaf, err := readSmall(filepath.Join(data, genesisFile), audit.MaxLeaf)
	switch {
	case err == nil && audit.OriginOf(leaf) != token.Origin:
		return failed("%s holds another cluster already; give another --data", data)
	case err == nil:
		return nil
	}
	if _, err := os.Stat(filepath.Join(data, "audit.db")); err == nil {
		return failed("%s holds a log, but not the first entry of its cluster; give another --data", data)
	}
	return nil
}

// meshForRole settles where a node listens that was not told: a worker nowhere,
// the others on a free port of loopback, which stays theirs.
func meshForRole(ctx context.Context, cfg *config, f joinFlags, role string) error {
	if len(f.mesh) > 0 || f.config != "" {
		return nil
	}
	if role == registry.Worker {
		cfg.Mesh = []string{meshNone}
		return nil
	}
	ports, err := freePorts(ctx, 1, portOf(cfg.HTTP), portOf(cfg.GRPC))
	if err != nil {
		return err
	}
	cfg.Mesh = meshAddrs(ports[0])
	return nil
}

// announced are the addresses by which others may reach the node.
func announced(cfg *config, role string) []string {
	if role == registry.Worker || cfg.dialOnly() {
		return nil
	}
	return cfg.Mesh
}

func writeJoinConfig(cfg *config, f joinFlags) (string, error) {
	text, err := yaml.Marshal(map[string]any{"data": cfg.Data, "http": f.http, "mesh": cfg.Mesh})
	if err != nil {
		return "", fmt.Errorf("write configuration: %w", err)
	}
	name := filepath.Join(cfg.Data, "config.yaml")
	return name, durable.WriteFile(name, text, 0o600)
}

// knock shows the token to one keeper after the other, connected by the
// invitation's own key.
func knock(ctx context.Context, token inviteToken, key *identity.Key, name string, addrs []string) (joinAnswer, error) {
	if token.expired(time.Now()) {
		return joinAnswer{}, &a2a.Error{Code: "denied", Message: "the token has expired", Hint: "ask for another one: agenticraft invite"}
	}
	invite, err := identity.FromSeed(token.Seed)
	if err != nil {
		return joinAnswer{}, err
	}
	peers, err := parsePeers(token.Peers)
	if err != nil {
		return joinAnswer{}, err
	}
	node, err := mesh.New(mesh.Config{
		Key: invite, Cluster: token.Cluster, DialOnly: true,
		Allow: func(id identity.ID) bool { _, known := peers[id]; return known },
	})
	if err != nil {
		return joinAnswer{}, err
	}
	defer closed(node.Close)
	node.SetPeers(peers)
	ask := joinAsk{
		V: joinVersion, ID: key.ID(), Role: token.Role, Name: name, Addrs: addrs,
		Proof: registry.JoinProof(invite, token.Origin, key.ID(), token.Role),
	}
	ask.Sig = key.Sign(joinAskDomain, []byte(ask.Proof))
	ctx, cancel := context.WithTimeout(ctx, joinWait)
	defer cancel()
	for {
		var why error
		for _, id := range slices.Sorted(maps.Keys(peers)) {
			var answer joinAnswer
			err := askKeeper(ctx, clientTo(node, id, mesh.GuestProtocol), "/join", ask, &answer)
			if err == nil {
				return answer, nil
			}
			known := new(a2a.Error)
			if errors.As(err, &known) && known.Code != a2a.CodeUnavailable && known.Code != a2a.CodeInternal {
				return joinAnswer{}, refusedToken(known)
			}
			why = fmt.Errorf("%s: %w", id, err)
		}
		if !pause(ctx, joinRetry) {
			return joinAnswer{}, &a2a.Error{
				Code: "unavailable", Message: "no keeper took the token: " + why.Error(),
				Hint: "are the keepers up, and do they reach each other? is the token of this cluster?",
			}
		}
	}
}

// closed ends the use of what only a command used: what mattered is done, and
// durable, or its own error says otherwise.
func closed(end func() error) { _ = end() }

// refusedToken is a keeper's no, with the exit code of a denial.
func refusedToken(e *a2a.Error) error {
	return &a2a.Error{Code: "denied", Message: e.Message, Hint: "agenticraft invite makes a new token"}
}

// fetchLog pulls the log until the entry that let this node in is here, under a
// quorum's checkpoint.
func fetchLog(ctx context.Context, data string, token inviteToken, key *identity.Key, answer joinAnswer) (size uint64, root audit.Hash, err error) {
	peers, err := parsePeers(answer.Peers)
	if err != nil {
		return 0, root, err
	}
	p, err := openPull(data, []byte(answer.Genesis), token.Cluster, key, peers)
	if err != nil {
		return 0, root, err
	}
	defer closed(p.close)
	if err := p.until(ctx, func() bool { return p.store.Size() > answer.Index }); err != nil {
		return 0, root, err
	}
	if !p.tables.Member(key.ID()) {
		return 0, root, errors.New("the log says that this node is no member (any more)")
	}
	return p.store.Tree()
}

func (a *app) leaveCommand() *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use: "leave [NODE]", Short: "Take a node out of the cluster: the one asked, or NODE", Args: firstArgs(0, "NODE"),
		Long: `Take a node out of the cluster: the one whose door is asked, or NODE (an ID or a
name). What runs on it ends first; a keeper leaves the vote before it is removed, by
an entry that a quorum of the keepers signs. A node that is removed from elsewhere
is cut off at once unless it is a keeper that can still hear of it.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			door, err := a.api(cmd.Context())
			if err != nil {
				return err
			}
			var s statusView
			if err := door.do(cmd.Context(), "GET", "/v1/status", nil, &s); err != nil {
				return err
			}
			target := string(s.ID)
			if len(args) == 1 {
				target = args[0]
			}
			var done httpdoor.Removal
			if err := door.do(cmd.Context(), "DELETE", "/v1/nodes/"+url.PathEscape(target), nil, &done); err != nil {
				return err
			}
			if done.State != "removed" {
				if err := a.awaitLeave(cmd.Context(), door, done.ID, done.ID == s.ID, wait); err != nil {
					return err
				}
			}
			if a.json {
				a.print(map[string]any{"id": done.ID, "left": true})
				return nil
			}
			fmt.Fprintf(a.stdout, "node %s has left the cluster\n", done.ID)
			return nil
		},
	}
	cmd.Flags().DurationVar(&wait, "wait", 2*time.Minute, "how long to wait until it has left")
	return cmd
}

// awaitLeave waits until the node is no member, or, if it is the one asked, its
// process has ended.
func (a *app) awaitLeave(ctx context.Context, door *api, id identity.ID, self bool, wait time.Duration) error {
	for end := time.Now().Add(wait); ; {
		var out struct {
			Nodes []nodeView `json:"nodes"`
		}
		err := door.do(ctx, "GET", "/v1/nodes", nil, &out)
		known := new(a2a.Error)
		if self && errors.As(err, &known) && known.Code == "unavailable" {
			return nil // nobody answers there any more
		}
		if err == nil && !slices.ContainsFunc(out.Nodes, func(n nodeView) bool { return n.ID == id }) {
			return nil
		}
		if time.Now().After(end) || !pause(ctx, 100*time.Millisecond) {
			return &a2a.Error{Code: "unavailable", Message: fmt.Sprintf("node %s has not left yet; it goes on leaving", id), Hint: "agenticraft nodes shows whether it has"}
		}
	}
}
