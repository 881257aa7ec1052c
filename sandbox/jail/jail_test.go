package jail_test

import (
	"context"
	"testing"
	"time"

	"github.com/agenticraft/node/sandbox/jail"
	"github.com/agenticraft/node/sandbox/jail/jailtest"
)

func TestProbeMakesAJail(t *testing.T) {
	s := jailtest.Start(t)
	t.Logf("%+v", s.Probe())
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for range 20 {
		began := time.Now()
		j, err := s.Start(ctx, jail.Profile{ID: "x", Argv: []string{"/jail", "probe"}, Worker: true, Syscalls: "worker"})
		if err != nil {
			t.Fatal(err)
		}
		mid := time.Since(began)
		e, err := j.Wait(ctx)
		t.Log(e, err, mid, time.Since(began))
		j.Release()
	}
}
