package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// natsArgument makes this program a NATS server.
const natsArgument = "nats"

// natsConfig is the second argument, as JSON.
type natsConfig struct {
	Name   string `json:"name"`
	Dir    string `json:"dir"`
	Port   int    `json:"port"`
	Routes []int  `json:"routes"` // ports of the cluster's members, its own among them
	Self   int    `json:"self"`   // which of them
}

// serveNATS runs a server that flushes each message to disk before it says that
// it has it, until ctx ends.
func serveNATS(ctx context.Context, text string) error {
	var cfg natsConfig
	if err := json.Unmarshal([]byte(text), &cfg); err != nil {
		return err
	}
	opts := &server.Options{
		ServerName: cfg.Name, Host: "127.0.0.1", Port: cfg.Port, NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: cfg.Dir, SyncAlways: true,
		Cluster: server.ClusterOpts{Name: "bench", Host: "127.0.0.1", Port: cfg.Routes[cfg.Self]},
	}
	for _, port := range cfg.Routes {
		opts.Routes = append(opts.Routes, server.RoutesFromStr("nats://127.0.0.1:"+strconv.Itoa(port))...)
	}
	s, err := server.NewServer(opts)
	if err != nil {
		return err
	}
	go s.Start()
	<-ctx.Done()
	s.Shutdown()
	s.WaitForShutdown()
	return nil
}

// natsTrio is three servers and a stream with three replicas.
type natsTrio struct {
	procs   []*process
	conns   []*nats.Conn
	streams []jetstream.JetStream // one a connection
	next    atomic.Uint64
}

func (l *lab) startNATS(ctx context.Context) (n *natsTrio, err error) {
	ports, err := freePorts(ctx, 2*keepers)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	clients, routes := ports[:keepers], ports[keepers:]
	n = &natsTrio{}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.stop())
		}
	}()
	for i := range keepers {
		text, err := json.Marshal(natsConfig{
			Name: fmt.Sprint("n", i), Dir: filepath.Join(l.dir, fmt.Sprint("nats", i)), Port: clients[i], Routes: routes, Self: i,
		})
		if err != nil {
			return n, err
		}
		p, err := startProcess(ctx, exec.CommandContext(ctx, self, natsArgument, string(text)))
		if err != nil {
			return n, err
		}
		n.procs = append(n.procs, p)
	}
	err = n.procs[0].until(ctx, "NATS had a stream", func(ctx context.Context) bool {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		return n.connect(ctx, clients) == nil
	})
	return n, err
}

// connect opens the connections and makes the stream.
func (n *natsTrio) connect(ctx context.Context, ports []int) error {
	for len(n.conns) < peerConns {
		c, err := nats.Connect("nats://127.0.0.1:" + strconv.Itoa(ports[len(n.conns)%keepers]))
		if err != nil {
			return err
		}
		js, err := jetstream.New(c)
		if err != nil {
			c.Close()
			return err
		}
		n.conns, n.streams = append(n.conns, c), append(n.streams, js)
	}
	_, err := n.streams[0].CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: "bench", Subjects: []string{"bench"}, Replicas: keepers, Storage: jetstream.FileStorage,
	})
	return err
}

func (n *natsTrio) put(ctx context.Context, value []byte) error {
	_, err := n.streams[n.next.Add(1)%peerConns].Publish(ctx, "bench", value)
	return err
}

func (n *natsTrio) stop() error {
	var faults []error
	for _, c := range n.conns {
		c.Close()
	}
	for _, p := range n.procs {
		faults = append(faults, p.stop())
	}
	return errors.Join(faults...)
}

// appendingCrowd is so many writers at a time, each waiting for its own.
func appendingCrowd(writers int, value []byte, put func(context.Context, []byte) error) func(context.Context, time.Duration) (slice, error) {
	return func(ctx context.Context, d time.Duration) (slice, error) {
		ctx, cancel := context.WithTimeout(ctx, d+startWait)
		defer cancel()
		each := make([][]time.Duration, writers)
		faults := make([]error, writers)
		var work sync.WaitGroup
		begun := time.Now()
		for w := range writers {
			work.Go(func() {
				for faults[w] == nil {
					before := time.Now()
					faults[w] = put(ctx, value)
					each[w] = append(each[w], time.Since(before))
					if time.Since(begun) >= d {
						return
					}
				}
			})
		}
		work.Wait()
		s := slice{Elapsed: time.Since(begun)}
		for _, e := range each {
			s.Each = append(s.Each, e...)
		}
		return s, errors.Join(faults...)
	}
}
