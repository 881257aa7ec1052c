package main

import (
	"context"
	"fmt"
	"net"
	"strconv"

	"github.com/agenticraft/node/a2a"
)

// devPorts is the first of n consecutive free ports: first itself, or one that
// it finds if first is 0.
func devPorts(ctx context.Context, first, n int) (int, error) {
	if first != 0 {
		return first, portsFree(ctx, first, n)
	}
	for range 100 {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return 0, fmt.Errorf("find a free port: %w", err)
		}
		first := l.Addr().(*net.TCPAddr).Port
		if err := l.Close(); err != nil {
			return 0, fmt.Errorf("find a free port: %w", err)
		}
		if first+n <= 65536 && portsFree(ctx, first, n) == nil {
			return first, nil
		}
	}
	return 0, failed("no %d consecutive ports are free", n)
}

func portsFree(ctx context.Context, first, n int) error {
	for port := first; port < first+n; port++ {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			return &a2a.Error{Code: "failed", Message: fmt.Sprintf("port %d is taken", port), Hint: "choose another with --port; 0 finds free ones"}
		}
		if err := l.Close(); err != nil {
			return fmt.Errorf("try port %d: %w", port, err)
		}
	}
	return nil
}

// freePorts finds ports that are free for TCP and UDP alike, all held until
// all are found.
func freePorts(ctx context.Context, n int) ([]int, error) {
	var ports []int
	var held []interface{ Close() error }
	defer func() {
		for _, h := range held {
			_ = h.Close() // only reserved
		}
	}()
	for tries := 0; len(ports) < n && tries < 100; tries++ {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		held = append(held, l)
		port := l.Addr().(*net.TCPAddr).Port
		u, err := new(net.ListenConfig).ListenPacket(ctx, "udp", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			continue
		}
		held = append(held, u)
		ports = append(ports, port)
	}
	if len(ports) < n {
		return nil, failed("no %d ports are free for TCP and UDP", n)
	}
	return ports, nil
}
