package client_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/client"
	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/identity"
)

// The whole of it: find a node, verify its card, run code in one's own name
// over connections that may break, and keep proof that anybody can check
// without the node.
func Example() {
	server, stop := startNode() // `agenticraft dev`, in a folder with the two files below
	defer stop()

	ctx := context.Background()
	key, err := identity.Load("my-agent.key") // `agenticraft agent keygen`, `agent add`
	check(err)
	trust := trusted("trust.json") // `agenticraft trust export`
	keepers, err := trust.Keepers()
	check(err)
	node, err := client.Discover(ctx, server, client.Config{Key: key, Node: keepers[0]}) // who must have signed the card
	check(err)
	report, err := node.Run(ctx, a2a.Execution{Language: "starlark", Code: "result = 6 * 7"}) // signs, sends and waits
	check(err)
	receipt, err := node.Receipt(ctx, report.Task)
	check(err)
	_, err = audit.VerifyReceipt(receipt, trust, signedBy)
	check(err)
	fmt.Println(string(report.Result))
	// Output: 42
}

// signedBy tells the verifier what the request's own signature proves.
func signedBy(request json.RawMessage) (audit.RequestFacts, error) {
	s, err := a2a.VerifyRaw(request)
	return audit.RequestFacts{Issuer: s.Claims.Issuer, Task: s.Task(), Digest: s.Digest}, err
}

// trusted reads whom to believe.
func trusted(file string) audit.Trust {
	text, err := os.ReadFile(file)
	check(err)
	trust, err := audit.ParseTrust(text)
	check(err)
	return trust
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
