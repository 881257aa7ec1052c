package authz_test

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/agenticraft/node/authz"
)

// Issue 6: the policy is replaced under load without one request that gets no
// answer, and each answer is wholly the old policy's or wholly the new one's.
func TestReloadUnderLoadDropsNothing(t *testing.T) {
	wide, narrow := authz.DefaultModules(), authz.DefaultModules()
	narrow["ceilings.json"] = strings.Replace(narrow["ceilings.json"], `"starlark": true`, `"starlark": false`, 1)
	p := newPolicy(t, authz.Config{Modules: wide, Timeout: time.Minute})
	allows := map[string]bool{authz.Digest(wide): true, authz.Digest(narrow): false}
	q := authz.Query{Principal: agent("runner"), Action: authz.ExecRun, Execution: &authz.ExecutionFacts{Language: "starlark"}}

	var answered [2]atomic.Int64
	stop := make(chan struct{})
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			for {
				// At a pace that leaves the processor to the one who replaces.
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
				}
				d, err := p.Decide(t.Context(), q)
				allow, known := allows[d.Policy]
				if err != nil || !known || d.Allow != allow {
					t.Errorf("Decide = %+v, %v", d, err)
					return
				}
				if allow {
					answered[1].Add(1)
				} else {
					answered[0].Add(1)
				}
			}
		})
	}
	for i := range 4 {
		modules := narrow
		if i%2 == 1 {
			modules = wide
		}
		if err := p.Replace(t.Context(), modules); err != nil {
			t.Error(err)
		}
		// A policy that is none changes nothing meanwhile.
		if err := p.Replace(t.Context(), map[string]string{"x.rego": "package agenticraft.x"}); err == nil {
			t.Error("half a policy was taken")
		}
	}
	close(stop)
	callers.Wait()
	if answered[0].Load() == 0 || answered[1].Load() == 0 {
		t.Errorf("answers by the two policies: %d and %d", answered[0].Load(), answered[1].Load())
	}
}
