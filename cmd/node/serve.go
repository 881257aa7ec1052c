package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/server"
	"github.com/agenticraft/node/a2a/taskstore"
	"github.com/agenticraft/node/agent"
	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/audit/threat"
	"github.com/agenticraft/node/authz"
	httpdoor "github.com/agenticraft/node/bridges/http"
	"github.com/agenticraft/node/bridges/http/console"
	natsdoor "github.com/agenticraft/node/bridges/nats"
	"github.com/agenticraft/node/consensus"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/internal/collector"
	"github.com/agenticraft/node/internal/durable"
	"github.com/agenticraft/node/mesh"
	"github.com/agenticraft/node/registry"
)

// drainWait is how long running executions may still end after a stop was
// asked for.
const drainWait = 3 * time.Second

func (a *app) serveCommand() *cobra.Command {
	var file string
	var show, withParent bool
	cmd := &cobra.Command{Use: "serve", Short: "Run a node", Args: noArgs}
	flags := cmd.Flags()
	flags.StringVar(&file, "config", "", "YAML configuration file")
	flags.BoolVar(&show, "print-config", false, "print the effective configuration with the source of each value, and stop")
	flags.BoolVar(&withParent, "stop-with-parent", false, "stop when descriptor 3 ends")
	if err := flags.MarkHidden("stop-with-parent"); err != nil {
		panic("internal error: " + err.Error())
	}
	for _, s := range settingsTable() {
		flags.String(flagName(s.key), "", s.help+" ["+s.env+"]")
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		given := map[string]string{}
		for _, s := range settingsTable() {
			if f := cmd.Flags().Lookup(flagName(s.key)); f.Changed {
				given[s.key] = f.Value.String()
			}
		}
		if show {
			cfg, err := readConfig(file, given, a.env)
			if err != nil {
				return err
			}
			return a.printConfig(cfg)
		}
		cfg, err := loadConfig(file, given, a.env)
		if err != nil {
			return err
		}
		level, err := logLevel(cfg.LogLevel)
		if err != nil {
			return err
		}
		lines := newLogWriter(a.stderr)
		defer lines.flush(time.Second)
		log := slog.New(slog.NewTextHandler(lines, &slog.HandlerOptions{Level: level}))
		ctx, cancel := context.WithCancelCause(cmd.Context())
		defer cancel(nil)
		if withParent {
			go followParent(os.NewFile(3, "parent"), cancel)
		}
		for {
			// A node that found itself to be the odd one goes on in quarantine.
			if err := serve(ctx, cfg, log); !errors.Is(err, errOdd) {
				return err
			}
		}
	}
	return cmd
}

// followParent ends the node when its parent is gone, however it died.
func followParent(pipe *os.File, stop context.CancelCauseFunc) {
	_, _ = io.Copy(io.Discard, pipe) // ends when the parent's end does
	stop(errParentGone)
	// The parent cannot finish off a node that hangs, so the node does.
	time.Sleep(parentGrace)
	os.Exit(exitFailed)
}

const parentGrace = 4 * time.Second

var errParentGone = errors.New("the parent process is gone")

// serve is the start-up story of a node; read upwards, it is the way down.
func serve(ctx context.Context, cfg *config, log *slog.Logger) (err error) {
	began := time.Now()
	closing := func(what string, close func() error) {
		if e := close(); e != nil {
			err = errors.Join(err, fmt.Errorf("close %s: %w", what, e))
		}
	}
	if err := durable.Mkdir(cfg.Data, 0o700); err != nil {
		return err
	}
	unlock, err := lockFolder(cfg.Data)
	if err != nil {
		return err
	}
	defer unlock()
	ctx, seal := context.WithCancelCause(ctx)
	defer seal(nil)
	odd, err := openQuarantine(cfg.Data, seal, log)
	if err != nil {
		return err
	}

	// Who we are, and which cluster this is.
	self, err := readSelf(cfg)
	if err != nil {
		return err
	}
	key, genesis, begin := self.key, self.genesis, self.begin
	origin := audit.OriginOf(genesis)
	who := &membership{self: key.ID(), origin: origin, first: keepersOf(begin), known: self.peers, log: log}

	// The log, which is also the registry's and raft's memory.
	links := newLinks()
	fetch := audit.NewFetcher(links.logClient, who.keepers)
	store, err := audit.OpenStore(audit.StoreConfig{
		Dir: cfg.Data, Genesis: genesis, Admit: registry.Admission{Origin: origin}, Fetch: fetch, Log: log,
	})
	if err != nil {
		return err
	}
	defer closing("audit log", store.Close)
	members := directory{registry.New(store)}
	who.registry = members.Registry
	own, err := who.member()
	if err != nil {
		return err
	}
	auditor := own.Role == registry.Auditor
	cfg.NoRun = cfg.NoRun || auditor

	// The mesh lets in whom the registry knows.
	node, err := mesh.New(mesh.Config{
		Key: key, Cluster: begin.Cluster, Listen: cfg.Mesh, DialOnly: cfg.dialOnly(), Allow: who.allow, Guests: who.guest, Log: log,
	})
	if err != nil {
		return err
	}
	defer closing("mesh", node.Close)
	node.SetPeers(who.peers())
	links.node = node

	// Keepers have the log from raft, over the mesh; the others pull it.
	points, mirror, err := signers(key, store, who, links, own.Role, odd, log)
	if err != nil {
		return err
	}
	marks, err := openWaterlines(&waterlines{dir: cfg.Data, key: key, store: store, who: who, links: links, log: log, fallen: who.rolledBack})
	if err != nil {
		return err
	}
	group, err := openConsensus(ctx, cfg, key.ID(), own.Role, who, node, links, store, mirror, odd, marks, log)
	if err != nil {
		return err
	}
	defer closing("consensus", group.Close)
	seen := &horizon{store: store}
	plain := audit.NewRecorder(audit.RecorderConfig{
		Key: key, Proposer: group, Origin: store.Origin(), Log: log,
		Ambiguous: func(err error) bool {
			return !errors.Is(err, consensus.ErrNoLeader) && !errors.Is(err, consensus.ErrRefused)
		},
	})
	defer closing("recorder", plain.Close)
	recorder := notedRecorder{plain, seen}

	// Policy and credentials.
	policy, err := authz.NewPolicy(authz.Config{Log: log})
	if err != nil {
		return err
	}
	defer closing("policy", policy.Close)
	var users *authz.OIDC
	if cfg.OIDCIssuer != "" {
		users, err = authz.NewOIDC(authz.OIDCConfig{
			Issuer: cfg.OIDCIssuer, Audience: cfg.OIDCAudience, Tenant: cfg.OIDCTenant, Groups: cfg.OIDCGroups, Roles: cfg.OIDCRoles, Log: log,
		})
		if err != nil {
			return usage("configuration: %v", err)
		}
	}
	rules := &policies{
		policy: policy, directory: members, store: store, log: log, poked: make(chan struct{}, 1),
		admin: &admin{recorder: recorder, registry: members.Registry, policy: policy, used: newKeyUse()},
	}
	rules.admin.policies = rules
	rules.activate(ctx)
	keys, err := authz.NewAPIKeys(authz.APIKeysConfig{Lookup: members.apiKey, Log: log})
	if err != nil {
		return err
	}

	// Sandboxes.
	manager, err := openSandboxes(cfg, key.ID(), nodeAddresses(node, self.peers), log)
	if err != nil {
		return err
	}
	defer closing("sandboxes", manager.Close)

	// The path, and the one handler in front of it.
	evidence, err := agent.OpenEvidence(filepath.Join(cfg.Data, "evidence"))
	if err != nil {
		return err
	}
	defer closing("evidence", evidence.Close)
	path := agent.New(agent.Config{
		Key: key, Audience: a2a.Audience(begin.Cluster),
		Policy: policy, Directory: members, Recorder: recorder, Log: store, Runner: manager,
		Peers: &meshPeers{node, links, &peerCards{links: links, audience: a2a.Audience(begin.Cluster), log: log, proved: map[identity.ID]time.Time{}}, members}, Evidence: evidence,
		BuildReceipt: func(ctx context.Context, task string, extra audit.ReceiptExtra) ([]byte, error) {
			return audit.BuildReceipt(ctx, store, task, extra)
		},
		Reported: seen.note, Catchup: seen.reach, Retention: members.retention, EvidenceBytes: cfg.EvidenceBytes,
		Lead: group.Lead, Defaults: cfg.limits(), NoRun: cfg.NoRun, Closed: closedTo(auditor, odd), Logger: log,
	})
	rules.admin.denied = path.NoteDenial
	node.SetAdvert(path.Advert)
	tasks, err := taskstore.Open(taskstore.Config{Dir: cfg.Data})
	if err != nil {
		return err
	}
	defer closing("task store", tasks.Close)
	secure, err := openTLS(cfg.TLS, log)
	if err != nil {
		return err
	}
	card, err := newCards(cfg, secure, key, begin.Cluster, manager, policy, members, log)
	if err != nil {
		return err
	}
	handler, pusher, err := openHandler(cfg, path, tasks, key, card.For, log)
	if err != nil {
		return err
	}

	// Detectors read the log as it grows; the keeper that leads writes what they see.
	threats := threat.NewWatch(threat.WatchConfig{
		Thresholds: cfg.Thresholds,
		Entries:    store.Follow, Size: store.Size, Record: recorder.Record, Lead: who.leads, Log: log,
		Away: func() []identity.ID { return away(members, node, key.ID()) },
	})
	who.threats.Store(threats)

	run := ctx
	work, ctx := errgroup.WithContext(ctx)
	reads := audit.NewReadLog(audit.ReadLogConfig{Node: key.ID(), Record: recorder.Record, Log: log})

	// Doors.
	leaving := &departure{who: who, links: links, handler: handler, log: log, asked: make(chan struct{}, 1)}
	gates := &reception{admin: rules.admin, who: who, node: node, cluster: begin.Cluster, genesis: genesis, leaving: leaving, log: log}
	status := &cluster{
		begun: began, name: begin.Cluster, self: key.ID(), store: store, group: group, node: node,
		directory: members, policy: policy, policies: rules, manager: manager, path: path, who: who, role: own.Role, mirror: mirror, points: points, odd: odd, marks: marks, noRun: cfg.NoRun,
	}
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, own := range [][]prometheus.Collector{store.Metrics(), node.Metrics(), group.Metrics(), manager.Metrics(), threats.Metrics()} {
		metrics.MustRegister(own...)
	}
	if pusher != nil {
		metrics.MustRegister(pusher.Metrics()...)
	}
	rpc := server.HTTP(server.HTTPConfig{Handler: handler, Log: log})
	known := &credentials{keys: keys, users: users, directory: members, audience: a2a.Audience(begin.Cluster), noted: path.NoteUnauthenticated, used: rules.admin.used.note, tls: secure, stalled: store.Stalled}
	rpcGRPC, err := server.NewGRPC(server.GRPCConfig{Handler: handler, Authenticate: httpdoor.Callers(known), TLS: secure.own(), Log: log})
	if err != nil {
		return err
	}
	defer closing("gRPC", rpcGRPC.Close)
	listener, err := listen(ctx, "http", cfg.HTTP, secure)
	if err != nil {
		return err
	}
	var grpcListener net.Listener
	if cfg.GRPC != "" {
		if grpcListener, err = listen(ctx, "grpc_listen", cfg.GRPC, secure); err != nil {
			return errors.Join(err, listener.Close())
		}
	}
	doors := httpdoor.Config{
		Login: cfg.login(),
		A2A:   rpc, REST: server.REST(server.HTTPConfig{Handler: handler, Log: log}), GRPC: rpcGRPC, Tasks: handler, Card: card, Tiles: audit.PublicHandler(store),
		Metrics:       promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}),
		Authenticator: known,
		Gate:          &gate{policy, members, server.DoorHTTP, odd, path.NoteDenial},
		Log:           currentLog{store, seen}, Cluster: status, Reads: reads, Stopping: ctx, Evidence: keptEvidence{path},
		Admin:    rules.admin,
		Members:  gates,
		Policies: rules,
		Logger:   log,
	}
	tools := doors
	tools.Door, tools.Gate = server.DoorMCP, &gate{policy, members, server.DoorMCP, odd, path.NoteDenial}
	doors.MCP = mcpDoor(httpdoor.New(tools), log)
	if cfg.Console {
		doors.Console = console.Handler()
	}
	door := httpdoor.New(doors)
	doors.MCP, doors.Console = nil, nil // NATS has none
	doors.Door, doors.Gate = server.DoorNATS, &gate{policy, members, server.DoorNATS, odd, path.NoteDenial}
	overNATS, err := cfg.NATS.open(natsdoor.Config{
		Node: key.ID(), Cluster: begin.Cluster, Handler: httpdoor.New(doors), Tasks: handler, Logger: log,
	})
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	status.nats = overNATS

	work.Go(func() error { return collector.Run(ctx) })
	work.Go(func() error { return node.Run(ctx) })
	work.Go(func() error {
		<-ctx.Done()
		return drain(ctx, handler) // the doors' open streams end with the runs
	})
	work.Go(func() error {
		return serveLog(ctx, node, odd.guard(who.whereHandler(marks.handler(audit.LogHandler(store, points)))), log)
	})
	work.Go(func() error { return reads.Run(ctx) })
	work.Go(func() error { return rules.run(ctx) })
	work.Go(func() error { return rules.admin.used.run(ctx, key.ID(), rules.admin) })
	work.Go(func() error { return pruneTasks(ctx, tasks, cfg, log) })
	if pusher != nil {
		work.Go(func() error { return pusher.Run(ctx) })
	}
	work.Go(func() error { return watch(ctx, store, who, node, path, rules) })
	work.Go(func() error { return who.seek(ctx, node, links, unheard(own.Role, group.Leader, mirror)) })
	if odd.err() == nil {
		work.Go(func() error {
			return serveMesh(ctx, node, rpc, card, handler, path, &gate{policy, members, server.DoorMesh, odd, path.NoteDenial}, log)
		})
		work.Go(func() error { return path.Run(ctx, handler) })
		work.Go(func() error { return gates.serve(ctx) })
		work.Go(func() error { return leaving.run(ctx) })
	}
	switch {
	case odd.err() != nil: // the door says so
	case own.Role == registry.Keeper:
		keep := &steward{who: who, group: group, points: points, recorder: recorder, log: log}
		work.Go(func() error { return keepLog(ctx, store, points, group) })
		work.Go(func() error { return caughtUp(ctx, group, who, node) })
		work.Go(func() error { return marks.run(ctx, group) })
		work.Go(func() error { return keep.run(ctx) })
		work.Go(func() error { return threats.Run(ctx) })
	default:
		work.Go(func() error { return mirror.Run(ctx) })
		work.Go(func() error { return mirrored(ctx, mirror, who, node) })
	}
	work.Go(func() error { return httpdoor.Serve(ctx, secure.wrap(listener), door, log) })
	if grpcListener != nil {
		work.Go(func() error { return rpcGRPC.Serve(ctx, grpcListener, drainWait) })
	}
	if overNATS != nil {
		work.Go(func() error { return overNATS.Run(ctx) })
	}
	work.Go(func() error {
		select {
		case err := <-group.Failed():
			return fmt.Errorf("consensus failed: %w", err)
		case <-ctx.Done():
			return nil
		}
	})
	log.InfoContext(ctx, "node started", "node", key.ID(), "cluster", begin.Cluster, "http", listener.Addr().String(), "elapsed", time.Since(began))
	err = work.Wait()
	if errors.Is(err, errLeft) {
		log.InfoContext(ctx, "this node has left the cluster")
		err = nil
	}
	if cause := context.Cause(run); errors.Is(cause, errOdd) {
		log.ErrorContext(ctx, "this node is the odd one: it stops, and starts again in quarantine", "err", cause)
		err = errors.Join(err, cause)
	}
	log.InfoContext(ctx, "node stops")
	return err
}

// drain lets running executions end, and cancels those that do not.
func drain(ctx context.Context, h *server.Handler) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainWait)
	defer cancel()
	return h.Close(ctx)
}

func listen(ctx context.Context, name, addr string, secure *tlsFiles) (net.Listener, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, usage("%s: %q is not host:port", name, addr)
	}
	if secure == nil && !loopback(host) {
		return nil, usage("%s: %q is not a loopback address; anything wider needs TLS: set tls_cert and tls_key", name, addr)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, failed("%s: %v", name, err)
	}
	return l, nil
}

// loopback reports whether a host is this machine for sure: of another name
// only a resolver knows.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func keepersOf(g registry.GenesisBody) []identity.ID {
	var out []identity.ID
	for _, m := range g.Members {
		if m.Role == registry.Keeper {
			out = append(out, m.ID)
		}
	}
	return out
}

func startHint(err error) error {
	return &a2a.Error{Code: "failed", Message: err.Error(), Hint: "agenticraft init --data DIR makes a node's folder"}
}

func flagName(key string) string {
	out := []byte(key)
	for i, c := range out {
		if c == '_' {
			out[i] = '-'
		}
	}
	return string(out)
}

func logLevel(name string) (slog.Level, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(name)); err != nil {
		return 0, usage("log level %q is none of debug, info, warn, error", name)
	}
	return level, nil
}

func (a *app) printConfig(cfg *config) error {
	if a.json {
		a.print(map[string]any{"settings": cfg.shown()})
		return nil
	}
	for _, s := range cfg.shown() {
		fmt.Fprintf(a.stdout, "%s: %q  # %s\n", s.Key, s.Value, s.Source)
	}
	return nil
}
