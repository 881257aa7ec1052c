package a2a

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"

	"github.com/agenticraft/node/identity"
)

// Types of what we sign with JWS (RFC 7515). The type is part of what is
// signed and keeps a signature for one purpose from serving another.
const (
	typMessage = "a2a-msg+jws"
	typToken   = "a2a-token+jwt"
	typCard    = "JOSE" // asked for by the A2A specification, 8.4
)

const maxProtectedBytes = 1 << 10

// algorithms that are accepted, all of them Ed25519 (RFC 8037, RFC 9864).
// What is written is the first.
var algorithms = []string{"EdDSA", "Ed25519"}

var b64 = base64.RawURLEncoding.Strict()

type jwsHeader struct {
	Alg string `json:"alg"`
	Typ string `json:"typ"`
	Kid string `json:"kid"`
}

// jws is one signature in the JWS JSON serialization, its payload detached.
type jws struct {
	Protected string `json:"protected"`
	Signature string `json:"signature"`
}

func signJWS(key *identity.Key, typ string, payload []byte) (jws, error) {
	header, err := json.Marshal(jwsHeader{Alg: algorithms[0], Typ: typ, Kid: key.ID().KeyURL()})
	if err != nil {
		return jws{}, err
	}
	protected := b64.EncodeToString(header)
	return jws{Protected: protected, Signature: b64.EncodeToString(key.SignRaw(signingInput(protected, payload)))}, nil
}

// issuer reads who made the signature, and his did:key, trusting nothing yet. It
// refuses every header that is not exactly {alg, typ, kid} with values that we
// know: no other algorithm, no crit, no key of the sender's choosing.
func (s jws) issuer(typ string) (signer identity.ID, did string, err error) {
	if len(s.Protected) > maxProtectedBytes {
		return "", "", Errorf(CodeSignatureInvalid, "protected header is longer than %d bytes", maxProtectedBytes)
	}
	raw, err := b64.DecodeString(s.Protected)
	if err != nil {
		return "", "", Errorf(CodeSignatureInvalid, "protected header is not base64url")
	}
	kid, usual := usualHeader(raw, typ)
	if !usual {
		if kid, err = readHeader(raw, typ); err != nil {
			return "", "", err
		}
	}
	did, fragment, _ := strings.Cut(kid, "#")
	if signer, err = identity.FromDID(did); err != nil || fragment != strings.TrimPrefix(did, "did:key:") {
		return "", "", Errorf(CodeSignatureInvalid, "kid is not the did:key URL of an Ed25519 key")
	}
	return signer, did, nil
}

// usualHeader gives the kid of a header that is written as [signJWS] writes it,
// if it is. Whether it is the URL of a key, and so without quotes and escapes, is
// for the caller.
func usualHeader(raw []byte, typ string) (kid string, ok bool) {
	rest, a := strings.CutPrefix(string(raw), `{"alg":"EdDSA","typ":"`)
	rest, b := strings.CutPrefix(rest, typ)
	rest, c := strings.CutPrefix(rest, `","kid":"`)
	kid, d := strings.CutSuffix(rest, `"}`)
	return kid, a && b && c && d && !strings.ContainsAny(kid, `"\`)
}

// readHeader gives the kid of any other header.
func readHeader(raw []byte, typ string) (string, error) {
	canonical, err := canonicalJSON(raw)
	if err != nil {
		return "", Errorf(CodeSignatureInvalid, "protected header is not JSON without duplicates")
	}
	var h jwsHeader
	if err := decodeExactly(canonical, &h); err != nil {
		return "", Errorf(CodeSignatureInvalid, "protected header: %s", Clip(err.Error()))
	}
	if !slices.Contains(algorithms, h.Alg) {
		return "", Errorf(CodeSignatureInvalid, "algorithm %.20q is not accepted (want EdDSA)", h.Alg)
	}
	if h.Typ != typ {
		return "", Errorf(CodeSignatureInvalid, "type %.40q is not accepted (want %s)", h.Typ, typ)
	}
	return h.Kid, nil
}

// size is more than what the signature adds to the text of a message.
func (s jws) size() int {
	const around = 256 // bytes: the names of the members, the extension's among them
	return len(s.Protected) + len(s.Signature) + around
}

// verify reports whether the signature is id's, of payload.
func (s jws) verify(id identity.ID, payload []byte) bool {
	sig, err := b64.DecodeString(s.Signature)
	return err == nil && id.VerifyRaw(signingInput(s.Protected, payload), sig)
}

func signingInput(protected string, payload []byte) []byte {
	out := make([]byte, 0, len(protected)+1+b64.EncodedLen(len(payload)))
	out = append(out, protected...)
	out = append(out, '.')
	return b64.AppendEncode(out, payload)
}
