package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protowire"
)

// peerConns is how many connections the writers of a peer share, as a client
// library would.
const peerConns = 8

// etcd is three members of etcd, each a process with a folder of its own. Its
// two calls are encoded by hand: its client library is a large dependency.
type etcd struct {
	procs []*process
	conns []*grpc.ClientConn // to the leader
	next  atomic.Uint64
}

// startEtcd starts the members and finds their leader.
func (l *lab) startEtcd(ctx context.Context) (e *etcd, err error) {
	bin, err := exec.LookPath("etcd")
	if err != nil {
		return nil, errors.New("etcd is not installed (Debian: apt-get install etcd-server)")
	}
	ports, err := freePorts(ctx, 2*keepers)
	if err != nil {
		return nil, err
	}
	client := func(i int) string { return "127.0.0.1:" + strconv.Itoa(ports[2*i]) }
	peer := func(i int) string { return "http://127.0.0.1:" + strconv.Itoa(ports[2*i+1]) }
	var members []string
	for i := range keepers {
		members = append(members, fmt.Sprintf("m%d=%s", i, peer(i)))
	}
	e = &etcd{}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.stop())
		}
	}()
	for i := range keepers {
		url := "http://" + client(i)
		cmd := exec.CommandContext(ctx, bin, "--name", fmt.Sprint("m", i), "--data-dir", filepath.Join(l.dir, fmt.Sprint("etcd", i)),
			"--listen-client-urls", url, "--advertise-client-urls", url,
			"--listen-peer-urls", peer(i), "--initial-advertise-peer-urls", peer(i),
			"--initial-cluster", strings.Join(members, ","), "--initial-cluster-state", "new", "--log-level", "error")
		p, err := startProcess(ctx, cmd)
		if err != nil {
			return e, err
		}
		e.procs = append(e.procs, p)
	}
	leader := -1
	err = e.procs[0].until(ctx, "etcd had a leader", func(ctx context.Context) bool {
		for i := range keepers {
			if leads, err := etcdLeads(ctx, client(i)); err == nil && leads {
				leader = i
				return true
			}
		}
		return false
	})
	if err != nil {
		return e, err
	}
	for range peerConns {
		c, err := dialEtcd(client(leader))
		if err != nil {
			return e, err
		}
		e.conns = append(e.conns, c)
	}
	return e, nil
}

func dialEtcd(addr string) (*grpc.ClientConn, error) {
	return grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// etcdLeads asks a member for its status: it leads if the leader's ID (field 4)
// is its own (field 2 of the header, which is field 1).
func etcdLeads(ctx context.Context, addr string) (bool, error) {
	c, err := dialEtcd(addr)
	if err != nil {
		return false, err
	}
	defer func() { _ = c.Close() }() // it has answered
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var answer []byte
	if err := c.Invoke(ctx, "/etcdserverpb.Maintenance/Status", &[]byte{}, &answer, grpc.ForceCodec(rawCodec{})); err != nil {
		return false, err
	}
	self, err := numberField(bytesField(answer, 1), 2)
	if err != nil {
		return false, err
	}
	leader, err := numberField(answer, 4)
	return err == nil && leader == self, err
}

// put writes one value under a key of its own.
func (e *etcd) put(ctx context.Context, value []byte) error {
	n := e.next.Add(1)
	var ask, answer []byte
	ask = protowire.AppendTag(ask, 1, protowire.BytesType)
	ask = protowire.AppendString(ask, fmt.Sprintf("%016x", n))
	ask = protowire.AppendTag(ask, 2, protowire.BytesType)
	ask = protowire.AppendBytes(ask, value)
	return e.conns[n%peerConns].Invoke(ctx, "/etcdserverpb.KV/Put", &ask, &answer, grpc.ForceCodec(rawCodec{}))
}

func (e *etcd) stop() error {
	var faults []error
	for _, c := range e.conns {
		faults = append(faults, c.Close())
	}
	for _, p := range e.procs {
		// Its folder is thrown away, and it ends an interrupt with an error.
		if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			faults = append(faults, err)
		}
		<-p.done
	}
	return errors.Join(faults...)
}

// rawCodec passes messages that are encoded already.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) ([]byte, error) {
	raw, ok := v.(*[]byte)
	if !ok {
		return nil, fmt.Errorf("internal error: message is a %T", v)
	}
	return *raw, nil
}

func (rawCodec) Unmarshal(data []byte, v any) error {
	raw, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("internal error: message is a %T", v)
	}
	*raw = append([]byte{}, data...)
	return nil
}

// bytesField is the field with a number of an encoded message; nil: not there.
func bytesField(msg []byte, field protowire.Number) []byte {
	for len(msg) > 0 {
		number, kind, n := protowire.ConsumeTag(msg)
		if n < 0 {
			return nil
		}
		msg = msg[n:]
		if number == field && kind == protowire.BytesType {
			value, size := protowire.ConsumeBytes(msg)
			if size < 0 {
				return nil
			}
			return value
		}
		if n = protowire.ConsumeFieldValue(number, kind, msg); n < 0 {
			return nil
		}
		msg = msg[n:]
	}
	return nil
}

// numberField is a field that is a varint.
func numberField(msg []byte, field protowire.Number) (uint64, error) {
	for len(msg) > 0 {
		number, kind, n := protowire.ConsumeTag(msg)
		if n < 0 {
			return 0, protowire.ParseError(n)
		}
		msg = msg[n:]
		if number == field && kind == protowire.VarintType {
			value, size := protowire.ConsumeVarint(msg)
			return value, protowire.ParseError(min(size, 0))
		}
		if n = protowire.ConsumeFieldValue(number, kind, msg); n < 0 {
			return 0, protowire.ParseError(n)
		}
		msg = msg[n:]
	}
	return 0, fmt.Errorf("no field %d", field)
}
