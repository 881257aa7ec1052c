package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
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
		if first := drawPort(n); portsFree(ctx, first, n) == nil {
			return first, nil
		}
	}
	return 0, failed("no %d consecutive ports are free", n)
}

// The ports that we draw from lie below those that systems give to outgoing
// connections (from 32768 on Linux, from 49152 as RFC 6335 has it): what is free
// now is not taken by one before the node that gets it listens.
const lowestPort, highestPort = 10_240, 32_767

// drawPort is the first of n ports in a row, which may be taken.
func drawPort(n int) int { return lowestPort + rand.IntN(highestPort-lowestPort+2-n) }

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
// all are found, and none that is promised to somebody who does not listen yet.
func freePorts(ctx context.Context, n int, promised ...int) ([]int, error) {
	var ports []int
	var held []interface{ Close() error }
	defer func() {
		for _, h := range held {
			_ = h.Close() // only reserved
		}
	}()
	for tries := 0; len(ports) < n && tries < 100; tries++ {
		port := drawPort(1)
		if slices.Contains(promised, port) {
			continue
		}
		at := "127.0.0.1:" + strconv.Itoa(port)
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", at)
		if err != nil {
			continue
		}
		held = append(held, l)
		u, err := new(net.ListenConfig).ListenPacket(ctx, "udp", at)
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

// portOf is the port of an address, 0 if it has none.
func portOf(address string) int {
	_, text, err := net.SplitHostPort(address)
	if err != nil {
		return 0
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return 0
	}
	return port
}
