package a2a

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/a2apb/v1"
	"google.golang.org/protobuf/types/known/structpb"

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

// Task names the task that the request makes; see [TaskID].
func (s Signed) Task() string { return TaskID(s.Issuer, s.JTI) }

// carrier is the value of the message's metadata under [SignedMessageURI].
type carrier struct {
	Claims     json.RawMessage `json:"claims"`
	Signatures []jws           `json:"signatures"`
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
	claims, err := newClaims(key, o)
	if err != nil {
		return nil, err
	}
	p, err := toProto(req)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(p.GetMessage().GetExtensions(), SignedMessageURI) {
		p.Message.Extensions = append(slices.Clone(p.GetMessage().GetExtensions()), SignedMessageURI)
	}
	request, err := canonicalProto(p)
	if err != nil {
		return nil, err
	}
	canonicalClaims, err := claims.canonical()
	if err != nil {
		return nil, err
	}
	signature, err := signJWS(key, typMessage, messagePayload(canonicalClaims, request))
	if err != nil {
		return nil, Errorf(CodeInternal, "sign: %v", err)
	}
	entry, err := looseJSON(carrier{Claims: canonicalClaims, Signatures: []jws{signature}})
	if err != nil {
		return nil, Errorf(CodeInternal, "sign: %v", err)
	}
	message := *req.Message
	message.Extensions = p.GetMessage().GetExtensions()
	message.Metadata = maps.Clone(req.Message.Metadata)
	message.SetMeta(SignedMessageURI, entry)
	out := *req
	out.Message = &message
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
	p, err := toProto(req)
	if err != nil {
		return Signed{}, err
	}
	carried, err := takeCarrier(p)
	if err != nil {
		return Signed{}, err
	}
	claims, err := decodeClaims(carried.Claims)
	if err != nil {
		return Signed{}, err
	}
	signature := carried.Signatures[0]
	signer, err := signature.issuer(typMessage)
	if err != nil {
		return Signed{}, err
	}
	if signer.DID() != claims.Issuer {
		return Signed{}, Errorf(CodeSignatureInvalid, "the signing key is not the issuer's")
	}
	request, err := canonicalProto(p)
	if err != nil {
		return Signed{}, err
	}
	if !signature.verify(signer, messagePayload(carried.Claims, request)) {
		return Signed{}, Errorf(CodeSignatureInvalid, "the signature does not cover this request")
	}
	if claims.Operation != OpSendMessage {
		return Signed{}, Errorf(CodeInvalidRequest, "signed for operation %.40q, not %s", claims.Operation, OpSendMessage)
	}
	sum := sha256.Sum256(request)
	return Signed{Issuer: signer, Claims: claims, JTI: claims.JTI, Digest: hex.EncodeToString(sum[:])}, nil
}

// takeCarrier removes the signature's entry from p and returns it, its claims
// in canonical form.
func takeCarrier(p *a2apb.SendMessageRequest) (carrier, error) {
	fields := p.GetMessage().GetMetadata().GetFields()
	entry, ok := fields[SignedMessageURI]
	if !ok {
		return carrier{}, &Error{Code: CodeSignatureMissing, Message: "the request is not signed", Hint: "sign it by the extension " + SignedMessageURI}
	}
	if !slices.Contains(p.GetMessage().GetExtensions(), SignedMessageURI) {
		return carrier{}, Errorf(CodeInvalidRequest, "the message carries a signature but does not name its extension")
	}
	delete(fields, SignedMessageURI)
	dropEmpty(p)
	raw, err := canonicalProto(entry)
	if err != nil {
		return carrier{}, err
	}
	if _, ok := entry.GetKind().(*structpb.Value_StructValue); !ok {
		return carrier{}, Errorf(CodeInvalidRequest, "the signature is not an object")
	}
	var c carrier
	if err := decodeExactly(raw, &c); err != nil {
		return carrier{}, Errorf(CodeInvalidRequest, "signature: %s", clip(err.Error()))
	}
	if len(c.Claims) == 0 || len(c.Signatures) != 1 {
		return carrier{}, Errorf(CodeInvalidRequest, "signature: want claims and exactly one signature")
	}
	return c, nil
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
	raw, err := claims.canonical()
	if err != nil {
		return Claims{}, err
	}
	return decodeClaims(raw)
}

// messagePayload is JCS({claims, request}): its two members, in order.
func messagePayload(claims, request []byte) []byte {
	out := make([]byte, 0, len(claims)+len(request)+32)
	out = append(out, `{"claims":`...)
	out = append(out, claims...)
	out = append(out, `,"request":`...)
	out = append(out, request...)
	return append(out, '}')
}

// looseJSON turns v into what encoding/json would read it as.
func looseJSON(v any) (any, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var out any
	if err := json.Unmarshal(raw, &out); err != nil {
		return nil, err
	}
	return out, nil
}
