package authz_test

import (
	"context"
	"fmt"

	"github.com/agenticraft/node/authz"
	"github.com/agenticraft/node/identity"
)

func ExamplePolicy_Decide() {
	policy, err := authz.NewPolicy(authz.Config{})
	if err != nil {
		panic(err)
	}
	defer policy.Close()
	caller := identity.Principal{Kind: identity.Service, Name: "k3xk3xk3xk", Tenant: "acme", Roles: []string{"runner"}}
	for _, network := range []string{"none", "allow=example.org:443"} {
		d, err := policy.Decide(context.Background(), authz.Query{
			Principal: caller, Action: authz.ExecRun,
			Execution: &authz.ExecutionFacts{Language: "python", Network: network},
		})
		fmt.Println(d.Allow, d.Obligations.MemoryBytes, d.Reasons, err)
	}
	// Output:
	// true 2147483648 [] <nil>
	// false 0 [{network_not_allowed the tenant may not reach example.org:443; it may reach: nothing; an admin sets the tenant's ceiling: agenticraft tenant set}] <nil>
}
