package a2a

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/agenticraft/node/identity"
)

// Token is what a self-signed token proves: that its bearer held the issuer's
// key a moment ago. It serves the operations that carry no metadata (GetTask,
// ListTasks, CancelTask) where the channel does not prove the caller.
type Token struct {
	Issuer  identity.ID
	JTI     string
	Expires time.Time
}

type tokenClaims struct {
	Issuer   string `json:"iss"`
	Audience string `json:"aud"`
	IssuedAt int64  `json:"iat"`
	Expires  int64  `json:"exp"`
	JTI      string `json:"jti"`
}

const maxTokenBytes = 2 << 10

// SignToken makes a compact JWT (RFC 7519) for one audience, to be sent as a
// bearer token. Of the options it takes Audience, TTL, JTI and Now.
func SignToken(key *identity.Key, o SignOptions) (string, error) {
	c, err := newClaims(key, o)
	if err != nil {
		return "", err
	}
	payload, err := json.Marshal(tokenClaims{Issuer: c.Issuer, Audience: c.Audience, IssuedAt: c.IssuedAt, Expires: c.Expires, JTI: c.JTI})
	if err != nil {
		return "", Errorf(CodeInternal, "token: %v", err)
	}
	signature, err := signJWS(key, typToken, payload)
	if err != nil {
		return "", Errorf(CodeInternal, "token: %v", err)
	}
	return signature.Protected + "." + b64.EncodeToString(payload) + "." + signature.Signature, nil
}

// IsToken reports whether a bearer credential has the form of a token, as
// opposed to an API key.
func IsToken(bearer string) bool { return strings.Count(bearer, ".") == 2 }

// IsOwnToken reports whether a token says of itself that an agent signed it, as
// opposed to an OpenID provider. It proves nothing.
func IsOwnToken(bearer string) bool {
	header, _, _ := strings.Cut(bearer, ".")
	if len(header) > maxTokenBytes {
		return false
	}
	text, err := b64.DecodeString(header)
	if err != nil {
		return false
	}
	var said struct {
		Type string `json:"typ"`
	}
	return json.Unmarshal(text, &said) == nil && said.Type == typToken
}

// VerifyToken checks a token in the same order and with the same codes as
// [Verify].
func VerifyToken(token string, o VerifyOptions) (Token, error) {
	if len(token) > maxTokenBytes {
		return Token{}, Errorf(CodeTooLarge, "token is longer than %d bytes", maxTokenBytes)
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return Token{}, Errorf(CodeInvalidRequest, "not a token")
	}
	payload, err := b64.DecodeString(parts[1])
	if err != nil {
		return Token{}, Errorf(CodeInvalidRequest, "token is not base64url")
	}
	canonical, err := canonicalJSON(payload)
	if err != nil {
		return Token{}, err
	}
	var t tokenClaims
	if err := decodeExactly(canonical, &t); err != nil {
		return Token{}, Errorf(CodeInvalidRequest, "token: %s", Clip(err.Error()))
	}
	claims := Claims{Issuer: t.Issuer, Audience: t.Audience, IssuedAt: t.IssuedAt, Expires: t.Expires, JTI: t.JTI}
	if err := claims.check(); err != nil {
		return Token{}, err
	}
	signature := jws{Protected: parts[0], Signature: parts[2]}
	signer, did, err := signature.issuer(typToken)
	if err != nil {
		return Token{}, err
	}
	if did != claims.Issuer || !signature.verify(signer, payload) {
		return Token{}, Errorf(CodeSignatureInvalid, "the token's signature is not its issuer's")
	}
	if err := claims.checkFor(o); err != nil {
		return Token{}, err
	}
	return Token{Issuer: signer, JTI: claims.JTI, Expires: time.Unix(claims.Expires, 0)}, nil
}
