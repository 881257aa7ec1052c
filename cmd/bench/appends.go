package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/registry"
)

const keepers = 3

// appender is a keeper's process as we see it.
type appender struct {
	id   identity.ID
	dir  string
	proc *process
	in   io.WriteCloser
	ask  *json.Encoder
	hear *json.Decoder
	last answer
}

// peers are the stores that the log is measured beside; nil where there is none.
type peers struct {
	etcd *etcd
	nats *natsTrio
}

// startPeers starts what can be started, and says what could not.
func (l *lab) startPeers(ctx context.Context, t *Table) (p peers, stop func() error) {
	var stops []func() error
	etcd, err := l.startEtcd(ctx)
	if err != nil {
		t.Problems = append(t.Problems, "beside etcd: "+err.Error())
	} else {
		p.etcd, stops = etcd, append(stops, etcd.stop)
	}
	nats, err := l.startNATS(ctx)
	if err != nil {
		t.Problems = append(t.Problems, "beside NATS: "+err.Error())
	} else {
		p.nats, stops = nats, append(stops, nats.stop)
	}
	return p, func() error {
		var faults []error
		for _, stop := range stops {
			faults = append(faults, stop())
		}
		return errors.Join(faults...)
	}
}

// contenders are the peers with so many writers.
func (p peers) contenders(writers, size int) (out []*contender) {
	// Text, as entries are: etcd and NATS store it as it is.
	value := bytes.Repeat([]byte("x"), size)
	add := func(name string, put func(context.Context, []byte) error) {
		out = append(out, &contender{name: name + ", writers: " + strconv.Itoa(writers), run: appendingCrowd(writers, value, put)})
	}
	if p.etcd != nil {
		add(etcdName, p.etcd.put)
	}
	if p.nats != nil {
		add(natsName, p.nats.put)
	}
	return out
}

const (
	etcdName = "etcd, three members"
	natsName = "NATS JetStream R3, sync always"
)

// appendGoals are the least rates over a peer's, by writers.
var appendGoals = map[int]map[string]float64{
	1: {etcdName: 1}, 64: {etcdName: 1.2, natsName: 0.9}, 512: {etcdName: 1.8},
}

// measureAppends measures acknowledged entries on three keepers, against etcd
// and NATS, each of which has them on two disks too, and against appending one
// as large to a file and waiting for the disk.
func (l *lab) measureAppends(ctx context.Context, t *Table, each time.Duration) (err error) {
	trio, err := l.startKeepers(ctx)
	defer func() {
		for _, k := range trio {
			err = errors.Join(err, k.stop())
		}
	}()
	if err != nil {
		return err
	}
	leader, err := elected(ctx, trio)
	if err != nil {
		return err
	}
	follower := trio[0]
	if leader == follower {
		follower = trio[1]
	}
	file, err := os.OpenFile(filepath.Join(l.dir, "appended"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := leader.request(ctx, ask{Write: &load{Writers: 1}}); err != nil {
		return err
	}
	size := leader.last.Leaf
	before, err := diskBytes(leader.dir)
	if err != nil {
		return err
	}
	from := leader.last.Size
	beside, stopPeers := l.startPeers(ctx, t)
	defer func() { err = errors.Join(err, stopPeers()) }()
	g := Group{Name: fmt.Sprintf("acknowledged appends of %d bytes, three keepers", size)}
	for _, writers := range []int{1, 64, 512} {
		bare := &contender{name: "append + fsync, one file", run: appends(file, size)}
		var spent time.Duration // by all keepers
		at := func(name string, k *appender) *contender {
			return &contender{
				name: name + ", writers: " + strconv.Itoa(writers),
				run: func(ctx context.Context, d time.Duration) (slice, error) {
					before, err := spending(trio)
					if err != nil {
						return slice{}, err
					}
					if err := k.request(ctx, ask{Write: &load{Writers: writers, For: d}}); err != nil {
						return slice{}, err
					}
					after, err := spending(trio)
					if d > 0 { // else it does not count
						spent += after - before
					}
					return k.last.Wrote, err
				},
			}
		}
		first, second := at("at the leader", leader), at("at a follower", follower)
		// Four longer turns: a crowd of writers takes a moment to form.
		others := beside.contenders(writers, size)
		if err := interleave(ctx, rounds/2, 2*each/rounds, append([]*contender{first, second, bare}, others...)); err != nil {
			return err
		}
		n := 0
		for _, c := range []*contender{first, second} {
			row := c.row()
			n += row.N
			for _, peer := range append(others, bare) {
				row.Peers = append(row.Peers, Ratio{Peer: peer.name, Times: rates(c, peer), Of: "rate"})
			}
			g.Rows = append(g.Rows, row)
		}
		for _, peer := range others {
			g.Rows = append(g.Rows, peer.row())
		}
		each := summary("processor time for each, writers: "+strconv.Itoa(writers), "us", []float64{float64(spent.Microseconds()) / float64(n)})
		each.N, each.Note = n, "three keepers together, with the writers"
		g.Rows = append(g.Rows, each)
		t.Targets = append(t.Targets, appendTargets(first, others, writers)...)
		if writers == 1 {
			g.Rows = append(g.Rows, bare.row())
		}
	}
	if err := measureCheckpoints(ctx, t, &g, leader, follower, each); err != nil {
		return err
	}
	if err := leader.request(ctx, ask{}); err != nil {
		return err
	}
	if !leader.last.Leads {
		t.Problems = append(t.Problems, "the leader of the appends changed on the way")
	}
	after, err := diskBytes(leader.dir)
	if err != nil {
		return err
	}
	written := leader.last.Size - from
	r := summary("on disk for each, on one keeper", "bytes", []float64{float64(after-before) / float64(written)})
	r.N = int(written)
	r.Note = "log and raft's log together, before raft's is truncated"
	g.Rows = append(g.Rows, r)
	t.Sections = append(t.Sections, g)
	return nil
}

// checkpointGoal is the most that the 99th percentile may be, from before an
// append until a checkpoint of a quorum covers the entry, in milliseconds.
const checkpointGoal = 1000

// measureCheckpoints measures, under a light load, how long an entry waits for a
// checkpoint that a quorum signed: where checkpoints are proposed, and where they
// have to be sent to.
func measureCheckpoints(ctx context.Context, t *Table, g *Group, leader, follower *appender, each time.Duration) error {
	goal := Target{Name: "append to quorum checkpoint, p99", Unit: "ms", Most: checkpointGoal}
	light := load{Writers: 8, Checkpoint: true, Pause: 300 * time.Millisecond}
	at := func(name string, k *appender) *contender {
		return &contender{name: "append to quorum checkpoint, " + name, run: func(ctx context.Context, d time.Duration) (slice, error) {
			light := light
			light.For = d
			err := k.request(ctx, ask{Write: &light})
			return k.last.Wrote, err
		}}
	}
	both := []*contender{at("at the leader", leader), at("at a follower", follower)}
	// A few longer turns: each entry waits for a part of a second.
	if err := interleave(ctx, 2, max(each/2, 2*time.Second), both); err != nil {
		return err
	}
	for _, c := range both {
		row := c.row()
		row.Note = fmt.Sprintf("%d writers, each pausing for up to %v", light.Writers, light.Pause)
		g.Rows = append(g.Rows, row)
		goal.Got = max(goal.Got, row.P99)
	}
	t.Targets = append(t.Targets, goal)
	return nil
}

// spending is the processor time of all keepers by now.
func spending(trio []*appender) (sum time.Duration, err error) {
	for _, k := range trio {
		_, cpu, err := stat(k.proc.cmd.Process.Pid)
		if err != nil {
			return 0, err
		}
		sum += cpu
	}
	return sum, nil
}

// appendTargets are the goals for so many writers at the leader, where the
// peers' writers are, too.
func appendTargets(ours *contender, others []*contender, writers int) (out []Target) {
	for _, name := range []string{etcdName, natsName} {
		least, ok := appendGoals[writers][name]
		if !ok {
			continue
		}
		goal := Target{Name: fmt.Sprintf("appends per second over %s, writers: %d", name, writers), Unit: "x", Least: least, Got: percentile(nil, 50)}
		for _, peer := range others {
			if strings.HasPrefix(peer.name, name) {
				goal.Got = rates(ours, peer)
			}
		}
		out = append(out, goal)
	}
	return out
}

// appends is one writer that appends to a file and waits for the disk.
func appends(file *os.File, size int) func(context.Context, time.Duration) (slice, error) {
	text := make([]byte, size)
	return repeated(func(ctx context.Context) error {
		if _, err := file.Write(text); err != nil {
			return err
		}
		return errors.Join(file.Sync(), ctx.Err())
	})
}

// startKeepers starts the processes of a new cluster and has them connect.
// Those that were started are returned even with an error.
func (l *lab) startKeepers(ctx context.Context) ([]*appender, error) {
	g := registry.Genesis{Cluster: "bench", Time: time.Now(), Tenants: []string{"default"}}
	var trio []*appender
	for i := range keepers {
		dir := filepath.Join(l.dir, "keeper"+strconv.Itoa(i+1))
		key, err := identity.Generate()
		if err == nil {
			err = os.Mkdir(dir, 0o700)
		}
		if err == nil {
			err = key.Save(filepath.Join(dir, "node.key"))
		}
		if err != nil {
			return nil, err
		}
		trio = append(trio, &appender{id: key.ID(), dir: dir})
		g.Members = append(g.Members, registry.MemberBody{ID: key.ID(), Role: registry.Keeper, Name: "node" + strconv.Itoa(i+1)})
		if i == 0 { // who may administer: nobody does
			g.Agents = []registry.AgentBody{{ID: key.ID(), Name: "admin", Tenant: "default", Roles: []string{registry.RoleAdmin}}}
		}
	}
	genesis, err := registry.GenesisLeaf(g)
	if err != nil {
		return nil, err
	}
	var started []*appender
	addrs := map[identity.ID][]string{}
	for _, k := range trio {
		if err := k.start(ctx); err != nil {
			return started, err
		}
		started = append(started, k)
		if err := k.request(ctx, keeperConfig{Dir: k.dir, Genesis: genesis}); err != nil {
			return started, err
		}
		addrs[k.id] = k.last.Addrs
	}
	for _, k := range started {
		if err := k.request(ctx, ask{Peers: addrs}); err != nil {
			return started, err
		}
	}
	return started, nil
}

// start starts this program again, as a keeper.
func (k *appender) start(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, keeperArgument) // its folder is thrown away: it may be killed
	if k.in, err = cmd.StdinPipe(); err != nil {
		return err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd.Stdout = write
	k.proc, err = startProcess(ctx, cmd)
	_ = write.Close() // the keeper has its own
	if err != nil {
		_ = read.Close() // nothing is in it
		return err
	}
	k.ask, k.hear = json.NewEncoder(k.in), json.NewDecoder(read)
	return nil
}

// request asks the keeper and waits for its answer, which is then k.last.
func (k *appender) request(ctx context.Context, what any) error {
	if err := errors.Join(ctx.Err(), k.ask.Encode(what)); err != nil {
		return err
	}
	k.last = answer{}
	if err := k.hear.Decode(&k.last); err != nil {
		return errors.Join(fmt.Errorf("a keeper's answer: %w", err), ctx.Err())
	}
	if k.last.Error != "" {
		return errors.New(k.last.Error)
	}
	return nil
}

// stop ends the keeper's input, and so the keeper.
func (k *appender) stop() error {
	return errors.Join(k.in.Close(), k.proc.wait())
}

// elected waits until one keeper leads and all follow it.
func elected(ctx context.Context, trio []*appender) (*appender, error) {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	for {
		var leader *appender
		healthy := 0
		for _, k := range trio {
			if err := k.request(ctx, ask{}); err != nil {
				return nil, err
			}
			if k.last.Leads {
				leader = k
			}
			if k.last.Healthy {
				healthy++
			}
		}
		if leader != nil && healthy == len(trio) {
			return leader, nil
		}
		if err := pause(ctx, pollEvery); err != nil {
			return nil, err
		}
	}
}
