package mandate_test

import (
	"fmt"
	"time"

	"github.com/agenticraft/node/authz/mandate"
	"github.com/agenticraft/node/identity"
)

// An owner lets a planner run Python for an hour; the planner hands a tenth of
// that on to a worker, who can hand on nothing.
func Example() {
	owner, planner, worker := newKey(), newKey(), newKey()
	given, err := mandate.Grant(owner, mandate.Root{
		Cluster: "agenticraft:dev", Tenant: "acme", To: planner.ID(),
		Terms: mandate.Terms{
			Actions: []string{"exec.run"}, Languages: []string{"python", "starlark"},
			Budget: mandate.Budget{Runs: 100}, Depth: 1, NotAfter: time.Now().Add(time.Hour),
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	handed, err := mandate.Narrow(planner, given, worker.ID(), mandate.Terms{Languages: []string{"starlark"}, Budget: mandate.Budget{Runs: 10}})
	if err != nil {
		fmt.Println(err)
		return
	}
	v, err := mandate.Verify(handed, mandate.Options{Cluster: "agenticraft:dev", Holder: worker.ID()})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(v.Root == owner.ID(), v.Terms.Languages, v.Terms.Budget.Runs, len(v.Chain))
	fmt.Println(v.Covers("exec.run", "python", mandate.Limits{}))
	// Output:
	// true [starlark] 10 2
	// mandate does not cover this: language "python" is not one of [starlark]
}

// A holder cannot hand on more than he was given.
func ExampleNarrow() {
	owner, planner, worker := newKey(), newKey(), newKey()
	given, err := mandate.Grant(owner, mandate.Root{
		Cluster: "agenticraft:dev", Tenant: "acme", To: planner.ID(),
		Terms: mandate.Terms{Actions: []string{"exec.run"}, Languages: []string{"starlark"}, Depth: 1, NotAfter: time.Now().Add(time.Hour)},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = mandate.Narrow(planner, given, worker.ID(), mandate.Terms{Languages: []string{"python"}})
	fmt.Println(err)
	// Output: mandate grants more than was given: block 1: language python
}

func newKey() *identity.Key {
	key, err := identity.Generate()
	if err != nil {
		panic(err)
	}
	return key
}
