package main

import (
	"encoding/json"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/audit"
)

// requestFacts checks a request's own signature for the verifier of receipts,
// which knows nothing of A2A.
func requestFacts(request json.RawMessage) (audit.RequestFacts, error) {
	signed, err := a2a.VerifyRaw(request)
	if err != nil {
		return audit.RequestFacts{}, err
	}
	return audit.RequestFacts{Issuer: signed.Claims.Issuer, Task: signed.Task(), Digest: signed.Digest}, nil
}
