package consensus_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/agenticraft/node/consensus"
	"github.com/agenticraft/node/internal/leaktest"
)

// TestMain fails if a test leaves a goroutine of ours or of raft's behind.
func TestMain(m *testing.M) {
	if cfg := os.Getenv(childEnv); cfg != "" {
		if err := child(cfg); err != nil && !errors.Is(err, io.EOF) {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(leaktest.Run(m, "/consensus.", "hashicorp/raft", "bbolt"))
}

func closed(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(patience))
	if n, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("stream gave %d bytes, %v, want it closed", n, err)
	}
}

func TestOnlyKeepersOpenRaftStreams(t *testing.T) {
	c := startCluster(t, 1)
	stranger := c.net.Node(newID(t))
	for _, protocol := range []string{"raft", "forward"} {
		s, err := stranger.Dial(t.Context(), c.ids[0], protocol)
		if err != nil {
			t.Fatal(err)
		}
		closed(t, s)
	}
	propose(t, c.groups[0], "still here")
}

func TestForwardedGarbageEndsTheStreamOnly(t *testing.T) {
	c := startCluster(t, 3)
	lead, follower := c.leader(), c.follower()
	for name, text := range map[string][]byte{
		"other version":  {9},
		"huge frame":     {1, 0xff, 0xff, 0xff, 0xff},
		"short frame":    {1, 0, 0, 0, 3, 1, 2, 3},
		"over the limit": binary.BigEndian.AppendUint32([]byte{1}, 12+consensus.MaxCommandBytes+1),
	} {
		t.Run(name, func(t *testing.T) {
			s, err := c.net.Node(c.ids[follower]).Dial(t.Context(), c.ids[lead], "forward")
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			s.SetWriteDeadline(time.Now().Add(patience))
			s.Write(text) // it may be closed in our face
			closed(t, s)
		})
	}
	propose(t, c.groups[follower], "still here")
}

func TestRaftGarbageIsSurvived(t *testing.T) {
	c := startCluster(t, 3)
	lead, follower := c.leader(), c.follower()
	s, err := c.net.Node(c.ids[follower]).Dial(t.Context(), c.ids[lead], "raft")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.SetDeadline(time.Now().Add(patience))
	s.Write([]byte("\xff garbage"))
	io.Copy(io.Discard, s)
	propose(t, c.groups[follower], "still here")
}

// One hop and no further: who is asked and does not lead names the leader.
func TestAForwardedProposalIsNotForwardedAgain(t *testing.T) {
	c := newCluster(t, 3)
	c.adjust = steady
	for i := range 3 {
		c.start(i)
	}
	lead := c.leader()
	follower, other := (lead+1)%3, (lead+2)%3
	s, err := c.net.Node(c.ids[other]).Dial(t.Context(), c.ids[follower], "forward")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.SetDeadline(time.Now().Add(patience))
	request := []byte{1, 0, 0, 0, 13, 0, 0, 0, 0, 0, 0, 0, 42, 0, 0, 4, 0, 'x'}
	if _, err := s.Write(request); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4+9+len(c.ids[lead]))
	if _, err := io.ReadFull(s, got); err != nil {
		t.Fatal(err)
	}
	if got[11] != 42 || got[12] != 1 || string(got[13:]) != string(c.ids[lead]) {
		t.Errorf("answer = %q, want that %s leads", got, c.ids[lead])
	}
}

func TestAnUnknownCommandVersionStopsTheNode(t *testing.T) {
	c := startCluster(t, 1)
	propose(t, c.groups[0], "before")
	if err := c.groups[0].ProposeRaw([]byte{99, 1, 'x'}); err != nil {
		t.Logf("apply: %v", err)
	}
	select {
	case err := <-c.groups[0].Failed():
		if !strings.Contains(err.Error(), "version 99") {
			t.Errorf("Failed = %v, want it to name the version", err)
		}
	case <-time.After(patience):
		t.Fatal("Failed said nothing")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := c.groups[0].Propose(ctx, []byte("after")); !errors.Is(err, consensus.ErrNoLeader) {
		t.Errorf("Propose after the failure = %v, want ErrNoLeader", err)
	}
	if got := c.machines[0].Commands(); len(got) != 1 {
		t.Errorf("applied %q after the failure", got)
	}
}

func TestAHungDiskCostsTheLead(t *testing.T) {
	c := startCluster(t, 3) // with the usual patience: a busy disk is none that hangs
	hung := c.leader()
	propose(t, c.groups[hung], "before")
	release := c.groups[hung].HoldDisk(t)
	begin := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	_, err := c.groups[hung].Propose(ctx, []byte("during"))
	if err != nil && !errors.Is(err, consensus.ErrAmbiguous) && !errors.Is(err, consensus.ErrNoLeader) {
		t.Errorf("Propose on a hung disk = %v", err)
	}
	next := c.leader(hung)
	t.Logf("lead lost and taken over after %v", time.Since(begin))
	propose(t, c.groups[next], "during")
	release()
	propose(t, c.groups[hung], "after")
	c.same([]string{"before", "during", "after"})
}

// A keeper whose state machine cannot write gives the lead away, says so, and
// catches up when it can write again.
func TestAFullDiskCostsTheLead(t *testing.T) {
	c := startCluster(t, 3)
	full := c.leader()
	propose(t, c.groups[full], "before")
	c.machines[full].Stall(errors.New("no space left"))
	next := c.leader(full)
	propose(t, c.groups[next], "during")
	propose(t, c.groups[full], "through the full one") // it forwards
	eventually(t, "the full keeper to say so", func() bool {
		st := c.groups[full].Status()
		return strings.Contains(st.Stalled, "no space left") && !st.Healthy
	})
	if got := c.machines[full].Commands(); len(got) != 1 {
		t.Errorf("the full keeper applied %q", got)
	}
	c.machines[full].Resume()
	c.same([]string{"before", "during", "through the full one"})
	eventually(t, "the keeper to be well again", func() bool { return c.groups[full].Status().Stalled == "" })
}

// A lone keeper with a full disk refuses, and closes without waiting for it.
func TestALoneKeeperWithAFullDisk(t *testing.T) {
	c := startCluster(t, 1)
	propose(t, c.groups[0], "before")
	c.machines[0].Stall(errors.New("no space left"))
	eventually(t, "the keeper to refuse", func() bool { return c.groups[0].Status().Stalled != "" })
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := c.groups[0].Propose(ctx, []byte("during")); !errors.Is(err, consensus.ErrNoLeader) || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("Propose = %v, want ErrNoLeader that says why", err)
	}
	c.machines[0].Resume()
	eventually(t, "the keeper to go on", func() bool { return c.groups[0].Status().Stalled == "" })
	propose(t, c.groups[0], "after")
	c.same([]string{"before", "after"})
	c.machines[0].Stall(errors.New("no space left"))
}

func TestACorruptLogTakesTheLeaderOutNotTheGroup(t *testing.T) {
	c := newCluster(t, 3)
	c.start(0)
	c.start(1)
	lead := c.leader()
	var want []string
	for i := range 100 { // more than raft caches
		want = append(want, fmt.Sprint("command ", i))
		propose(t, c.groups[lead], want[i])
	}
	c.groups[lead].Corrupt(t, 7)
	c.start(2) // needs entry 7 of the leader
	select {
	case err := <-c.groups[lead].Failed():
		if !errors.Is(err, consensus.ErrCorrupt) || !strings.Contains(err.Error(), "entry 7") {
			t.Errorf("Failed = %v, want ErrCorrupt of entry 7", err)
		}
	case <-time.After(patience):
		t.Fatal("Failed said nothing")
	}
	next := c.leader(lead)
	want = append(want, "after")
	propose(t, c.groups[next], "after")
	c.stop(lead)
	c.same(want)
}
