// Package a2a is the language that agents and nodes speak: signed requests to
// run code, signed agent cards, reports, and the one error type of the wire.
//
// It builds on the official A2A SDK's types (imported as sdk) and adds the
// signed-message extension ([Sign], [Verify]), which lets a signature travel
// through any binding and any number of bridges and still be checked years
// later from the bytes alone. It knows nothing of policy, storage or sandboxes.
package a2a

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"

	"github.com/agenticraft/node/identity"
)

// The URIs of our A2A extensions. A change that an older reader would
// misunderstand gets a new URI.
const (
	// SignedMessageURI names the extension that carries a request's signature.
	SignedMessageURI = "https://agenticraft.dev/a2a/ext/signed-message/v1"
	// ReceiptURI names the extension that carries a task's receipt.
	ReceiptURI = "https://agenticraft.dev/a2a/ext/receipt/v1"
	// ExecutionURI names the extension whose card parameters hold the JSON
	// Schema of [Execution] and what the node offers to run.
	ExecutionURI = "https://agenticraft.dev/a2a/ext/execution/v1"
)

// Version is the A2A protocol version on the wire.
const Version = "1.0"

// SameVersion reports whether a version that somebody names is [Version]. Its
// patch number, which he should have left out, does not count (3.6).
func SameVersion(named string) bool {
	patch, ok := strings.CutPrefix(named, Version)
	if !ok || patch == "" {
		return ok
	}
	digits, ok := strings.CutPrefix(patch, ".")
	_, err := strconv.ParseUint(digits, 10, 16)
	return ok && err == nil
}

// MaxRequestBytes is the largest request, as JSON, that is signed, verified or
// read by a server.
const MaxRequestBytes = 8 << 20

const taskIDBytes = 16

// Audience is the audience claim that means any node of the named cluster.
func Audience(cluster string) string { return "agenticraft:" + cluster }

// TaskID names the task of a request. It depends on nothing but the issuer and
// the request's jti, so the same request through any door is the same task.
func TaskID(issuer identity.ID, jti string) string {
	return labelled("agenticraft task v1", issuer.DID(), jti)
}

// OnceOf is what a principal's own key of a request, such as the Idempotency-Key of
// HTTP, is in a mandate block: 128 bits in hex, from which the key cannot be read.
func OnceOf(key string) string {
	return labelled("agenticraft once v1", key)
}

// onceTaskID names the task of a request that a node signed for a principal who
// repeats it by once. It does not depend on the node.
func onceTaskID(b MandateBlock) string {
	return labelled("agenticraft once task v1", b.Tenant, b.Subject, b.Once)
}

// labelled is the first 128 bits, in hex, of the SHA-256 of texts behind a label; all
// but one of the texts have no NUL.
func labelled(label string, texts ...string) string {
	sum := sha256.Sum256([]byte(label + "\x00" + strings.Join(texts, "\x00")))
	return hex.EncodeToString(sum[:taskIDBytes])
}

// ValidTaskID reports whether s has the form that [TaskID] gives.
func ValidTaskID(s string) bool {
	if len(s) != 2*taskIDBytes {
		return false
	}
	for i := range len(s) {
		if (s[i] < '0' || s[i] > '9') && (s[i] < 'a' || s[i] > 'f') {
			return false
		}
	}
	return true
}
