package a2a_test

import (
	"fmt"
	"time"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/identity"
)

func ExampleSign() {
	key, err := identity.FromSeed(make([]byte, 32))
	if err != nil {
		panic(err)
	}
	req, err := a2a.NewRequest(a2a.Execution{Language: "python", Code: "result = 6 * 7"})
	if err != nil {
		panic(err)
	}
	signed, err := a2a.Sign(key, req, a2a.SignOptions{
		Audience: a2a.Audience("demo"),
		JTI:      "000102030405060708090a0b0c0d0e0f",
		Now:      time.Unix(1_790_000_000, 0),
	})
	if err != nil {
		panic(err)
	}
	raw, err := a2a.MarshalRequest(signed) // what evidence keeps
	if err != nil {
		panic(err)
	}
	proof, err := a2a.VerifyRaw(raw, a2a.Audience("demo"))
	fmt.Println(proof.Issuer.DID(), proof.Task(), err)
	// Output: did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp 36331fb3541e21d1051ed5c74691d98b <nil>
}
