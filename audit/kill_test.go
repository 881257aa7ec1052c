package audit_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/audit/audittest"
	"github.com/agenticraft/node/internal/leaktest"
)

// TestMain lets the test binary be the child that TestKill kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv("AUDIT_TEST_APPEND"); dir != "" {
		if err := appendForever(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(leaktest.Run(m, "node/audit", "bbolt"))
}

// appendForever writes entries and says on stdout which are acknowledged.
func appendForever(dir string) error {
	tb := &testing.T{}
	key := audittest.Key(tb, 1)
	s, err := audit.OpenStore(audit.StoreConfig{Dir: dir, Genesis: audittest.Genesis(tb)})
	if err != nil {
		return err
	}
	l := audittest.Of(tb, s)
	r := audit.NewRecorder(audit.RecorderConfig{Key: key, Proposer: l, Origin: s.Origin()})
	lines := make(chan string, 1000)
	for range 8 {
		go func() {
			for {
				e := audit.Entry{Kind: audit.KindDenial, ID: audit.NewSalt(), Body: []byte(`{"code":"policy"}`)}
				ack, err := r.Record(context.Background(), e)
				if err != nil {
					lines <- "error " + err.Error()
					continue
				}
				lines <- fmt.Sprintf("%d %s", ack.Index, e.ID)
			}
		}()
	}
	for line := range lines {
		if _, err := fmt.Println(line); err != nil {
			return err
		}
	}
	return nil
}

// TestKillLosesNothing kills a writing process again and again; every
// acknowledged entry must be where it was, and the folder must verify.
//
// INVARIANT: I7, an acknowledged entry is never lost, changed or reordered.
func TestKillLosesNothing(t *testing.T) {
	rounds := 8
	if testing.Short() {
		rounds = 2
	}
	dir := t.TempDir()
	acked := make(map[string]string) // index -> id
	for round := range rounds {
		ctx, cancel := context.WithCancel(deadline(t))
		child := exec.CommandContext(ctx, os.Args[0])
		child.Env = []string{"AUDIT_TEST_APPEND=" + dir}
		child.Stderr = os.Stderr
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		var kill *time.Timer
		for lines.Scan() {
			if kill == nil { // it writes: its start is not what is cut short here
				kill = time.AfterFunc(time.Duration(rand.IntN(250))*time.Millisecond, cancel) // SIGKILL
			}
			index, id, ok := strings.Cut(lines.Text(), " ")
			if !ok || index == "error" || len(id) != 32 {
				continue // the last line may be cut
			}
			if other, ok := acked[index]; ok {
				t.Fatalf("round %d: index %s was given to %s and %s", round, index, other, id)
			}
			acked[index] = id
		}
		cancel()
		_ = child.Wait() // killed
		r, err := audit.VerifyDir(deadline(t), dir, nil)
		if err != nil || r.Bad != nil {
			t.Fatalf("round %d: %+v, %v, %v", round, r, r.Bad, err)
		}
	}
	s, err := audit.OpenStore(audit.StoreConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for text, id := range acked {
		var index uint64
		if _, err := fmt.Sscan(text, &index); err != nil {
			t.Fatal(err)
		}
		if e, _, err := s.Entry(index); err != nil || e.ID != id {
			t.Errorf("entry %d is %s, %v; acknowledged was %s", index, e.ID, err, id)
		}
	}
	t.Logf("%d kills, %d acknowledged entries, %d in the log", rounds, len(acked), s.Size()-1)
	if len(acked) == 0 {
		t.Error("nothing was acknowledged")
	}
}

func BenchmarkVerifyDir(b *testing.B) {
	const entries = 20_000
	l := audittest.New(b, nil, nil)
	key, origin := audittest.Key(b, 1), l.Store.Origin()
	for n := 0; n < entries; {
		var leaves [][]byte
		for range 200 {
			n++
			e := audittest.Intent(b, key.ID(), fmt.Sprint("task", n))
			e.V, e.Author, e.ID, e.Time = audit.EntryVersion, key.ID(), fmt.Sprintf("%032x", n), audit.FormatTime(time.Now())
			leaf, err := e.Encode()
			if err != nil {
				b.Fatal(err)
			}
			leaves = append(leaves, leaf)
		}
		if _, err := l.Propose(context.Background(), audit.SignBatch(key, origin, leaves)); err != nil {
			b.Fatal(err)
		}
	}
	dir := copyDir(b, l.Store.Dir())
	for b.Loop() {
		r, err := audit.VerifyDir(context.Background(), dir, nil)
		if err != nil || r.Bad != nil || r.Size != entries+1 {
			b.Fatal(r, r.Bad, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*entries), "µs/entry")
}
