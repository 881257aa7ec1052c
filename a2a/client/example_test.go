package client_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
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
	ctx := context.Background()
	key, err := identity.Load("my-agent.key")
	check(err)
	node, err := client.Discover(ctx, "http://127.0.0.1:8420", client.Config{Key: key})
	check(err)
	report, err := node.Run(ctx, a2a.Execution{Language: "python", Code: "result = 6 * 7"})
	check(err)
	receipt, err := node.Receipt(ctx, report.Task)
	check(err)
	_, err = audit.VerifyReceipt(receipt, trust(), signedBy)
	check(err)
	fmt.Println(string(report.Result))
}

// signedBy tells the verifier what the request's own signature proves.
func signedBy(request json.RawMessage) (audit.RequestFacts, error) {
	s, err := a2a.VerifyRaw(request)
	return audit.RequestFacts{Issuer: s.Claims.Issuer, Task: s.Task(), Digest: s.Digest}, err
}

// trust is whom to believe: `agenticraft trust export > trust.json`.
func trust() audit.Trust {
	text, err := os.ReadFile("trust.json")
	check(err)
	trust, err := audit.ParseTrust(text)
	check(err)
	return trust
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
