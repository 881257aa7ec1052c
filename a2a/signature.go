package a2a

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/identity"
)

// SignOptions say for whom and for how long a request is signed.
type SignOptions struct {
	Audience string         // required: [Audience] of a cluster, or a node's did:key
	TTL      time.Duration  // default 2 minutes, at most 5
	JTI      string         // default: a new one; the same again repeats a request safely
	Mandate  []MandateBlock // on whose behalf, if the signer is a node that vouches
	Now      time.Time      // default: the clock
}

// VerifyOptions say who we are and when.
type VerifyOptions struct {
	Audiences []string      // the names we answer to; none refuses everything
	Now       time.Time     // default: the clock
	MaxSkew   time.Duration // of the two clocks; default 30 s
}

// Signed is what a valid signature proves.
type Signed struct {
	Issuer identity.ID
	Claims Claims
	JTI    string
	// Digest is the hex SHA-256 of the canonical request without its claims
	// and signature: signed again, by the same or another, it stays the same.
	Digest string
}

// Task names the task that the request makes: see [TaskID]; where a node signed for
// a principal who can repeat his request, it is the principal's, not the node's.
func (s Signed) Task() string {
	if m := s.Claims.Mandate; len(m) > 0 && m[0].Once != "" {
		return onceTaskID(m[0])
	}
	return TaskID(s.Issuer, s.JTI)
}

// carrier is the value of the message's metadata under [SignedMessageURI].
type carrier struct {
	Claims     Claims `json:"claims"`
	Signatures []jws  `json:"signatures"`
}

// IsSigned reports whether the request carries a signature, valid or not.
func IsSigned(req *sdk.SendMessageRequest) bool {
	if req == nil || req.Message == nil {
		return false
	}
	_, ok := req.Message.Metadata[SignedMessageURI]
	return ok
}

// Sign returns a signed copy of the request; the original stays as it is. The
// signature covers the whole request: message, configuration, tenant and
// metadata. An error is an [*Error].
func Sign(key *identity.Key, req *sdk.SendMessageRequest, o SignOptions) (*sdk.SendMessageRequest, error) {
	if IsSigned(req) {
		return nil, Errorf(CodeInvalidRequest, "request is signed already")
	}
	if req == nil || req.Message == nil {
		return nil, Errorf(CodeInvalidRequest, "request has no message")
	}
	claims, err := newClaims(key, o)
	if err != nil {
		return nil, err
	}
	message := *req.Message
	if !slices.Contains(message.Extensions, SignedMessageURI) {
		message.Extensions = append(slices.Clone(message.Extensions), SignedMessageURI)
	}
	out := *req
	out.Message = &message
	said := claims.loose()
	payload, _, err := messagePayload(said, &out)
	if err != nil {
		return nil, err
	}
	signature, err := signJWS(key, typMessage, payload)
	if err != nil {
		return nil, Errorf(CodeInternal, "sign: %v", err)
	}
	message.Metadata = maps.Clone(message.Metadata)
	message.SetMeta(SignedMessageURI, map[string]any{
		"claims":     said,
		"signatures": []any{map[string]any{"protected": signature.Protected, "signature": signature.Signature}},
	})
	if size := len(payload) + signature.size(); size > MaxRequestBytes {
		return nil, Errorf(CodeTooLarge, "request has %d bytes, at most %d are accepted", size, MaxRequestBytes)
	}
	return &out, nil
}

// Verify checks a request's signature in the order size, syntax, algorithm and
// key, signature, audience, time. An error is an [*Error] whose code is exact,
// since the sender can check all of it himself. It does not know whether the
// jti was seen before or whether the issuer is known: that is for the caller.
func Verify(req *sdk.SendMessageRequest, o VerifyOptions) (Signed, error) {
	s, err := verifySignature(req)
	if err != nil {
		return Signed{}, err
	}
	if err := s.Claims.checkFor(o); err != nil {
		return Signed{}, err
	}
	return s, nil
}

// VerifyRaw checks the signature in a request kept as JSON (see
// [MarshalRequest]), years later and offline: as of its own iat, for any
// audience unless some are given.
func VerifyRaw(raw []byte, audiences ...string) (Signed, error) {
	req, err := ParseRequest(raw)
	if err != nil {
		return Signed{}, err
	}
	s, err := verifySignature(req)
	if err != nil {
		return Signed{}, err
	}
	if len(audiences) == 0 {
		audiences = []string{s.Claims.Audience}
	}
	if err := s.Claims.checkFor(VerifyOptions{Audiences: audiences, Now: time.Unix(s.Claims.IssuedAt, 0)}); err != nil {
		return Signed{}, err
	}
	return s, nil
}

// INVARIANT: I3, a signature covers what was received: the bytes that are
// checked are made anew from the very values that the request is read from.
func verifySignature(req *sdk.SendMessageRequest) (Signed, error) {
	entry, err := carrierOf(req)
	if err != nil {
		return Signed{}, err
	}
	payload, request, err := messagePayload(entry["claims"], req)
	if err != nil {
		return Signed{}, err
	}
	carried, err := readCarrier(entry, req.Message)
	if err != nil {
		return Signed{}, err
	}
	claims, signature := carried.Claims, carried.Signatures[0]
	signer, did, err := signature.issuer(typMessage)
	if err != nil {
		return Signed{}, err
	}
	if did != claims.Issuer {
		return Signed{}, Errorf(CodeSignatureInvalid, "the signing key is not the issuer's")
	}
	if size := len(payload) + signature.size(); size > MaxRequestBytes {
		return Signed{}, Errorf(CodeTooLarge, "request has %d bytes, at most %d are accepted", size, MaxRequestBytes)
	}
	if !signature.verify(signer, payload) {
		return Signed{}, Errorf(CodeSignatureInvalid, "the signature does not cover this request")
	}
	if claims.Operation != OpSendMessage {
		return Signed{}, Errorf(CodeInvalidRequest, "signed for operation %.40q, not %s", claims.Operation, OpSendMessage)
	}
	sum := sha256.Sum256(request)
	return Signed{Issuer: signer, Claims: claims, JTI: claims.JTI, Digest: hex.EncodeToString(sum[:])}, nil
}

// carrierOf is the signature's entry of a request, nil if it has none that is an
// object.
func carrierOf(req *sdk.SendMessageRequest) (map[string]any, error) {
	if req == nil || req.Message == nil {
		return nil, Errorf(CodeInvalidRequest, "request has no message")
	}
	entry, _ := req.Message.Metadata[SignedMessageURI].(map[string]any)
	return entry, nil
}

func readCarrier(entry map[string]any, message *sdk.Message) (carrier, error) {
	if _, ok := message.Metadata[SignedMessageURI]; !ok {
		return carrier{}, &Error{Code: CodeSignatureMissing, Message: "the request is not signed", Hint: "sign it by the extension " + SignedMessageURI}
	}
	if !slices.Contains(message.Extensions, SignedMessageURI) {
		return carrier{}, Errorf(CodeInvalidRequest, "the message carries a signature but does not name its extension")
	}
	if entry == nil {
		return carrier{}, Errorf(CodeInvalidRequest, "the signature is not an object")
	}
	var c carrier
	if err := decodeLoose(entry, &c); err != nil {
		return carrier{}, Errorf(CodeInvalidRequest, "signature: %s", Clip(err.Error()))
	}
	if len(c.Signatures) != 1 {
		return carrier{}, Errorf(CodeInvalidRequest, "signature: want claims and exactly one signature")
	}
	return c, c.Claims.check()
}

func newClaims(key *identity.Key, o SignOptions) (Claims, error) {
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	if o.TTL == 0 {
		o.TTL = defaultTTL
	}
	if o.JTI == "" {
		o.JTI = NewJTI()
	}
	claims := Claims{
		Issuer:    key.ID().DID(),
		Audience:  o.Audience,
		IssuedAt:  o.Now.Unix(),
		Expires:   o.Now.Add(o.TTL).Unix(),
		JTI:       o.JTI,
		Operation: OpSendMessage,
		Mandate:   o.Mandate,
	}
	return claims, claims.check()
}

// messagePayload is JCS({claims, request}), which is what is signed: the claims as
// they are written, and the request without its signature's entry. request is the
// part of it that is.
func messagePayload(claims any, req *sdk.SendMessageRequest) (payload, request []byte, err error) {
	const usual = 2 << 10
	payload = append(make([]byte, 0, usual), `{"claims":`...)
	if payload, err = canonicalLoose(payload, claims); err != nil {
		return nil, nil, err
	}
	payload = append(payload, `,"request":`...)
	begin := len(payload)
	if payload, err = canonicalRequest(payload, req, SignedMessageURI); err != nil {
		return nil, nil, err
	}
	end := len(payload)
	payload = append(payload, '}')
	return payload, payload[begin:end], nil
}
