package a2a

import (
	"crypto/sha256"
	"encoding/json"
	"strings"
	"time"

	"github.com/agenticraft/node/identity"
)

// NotificationHeader carries the signature of a push notification: a compact
// JWT (RFC 7519) of the node that sends it, over its receiver and its body.
const NotificationHeader = "A2A-Notification-Signature"

// NotificationTokenHeader carries the token of a push configuration.
const NotificationTokenHeader = "A2A-Notification-Token"

// Notification is what the signature of a push notification says.
type Notification struct {
	Issuer identity.ID // the node that sent it
	URL    string      // whom it was sent to, as the configuration has it
	Task   string
	JTI    string // one and the same each time the notification is sent again
}

type notificationClaims struct {
	Issuer   string `json:"iss"`
	Audience string `json:"aud"`
	Subject  string `json:"sub"`
	IssuedAt int64  `json:"iat"`
	Expires  int64  `json:"exp"`
	JTI      string `json:"jti"`
	Digest   string `json:"body_sha256"` // base64url
}

const (
	maxNotificationToken = 8 << 10 // bytes
	typNotification      = "a2a-push+jwt"
)

// SignNotification signs the body of a push notification for its receiver. Its
// Issuer is the key's; a zero now is the present.
func SignNotification(key *identity.Key, n Notification, body []byte, now time.Time) (string, error) {
	if now.IsZero() {
		now = time.Now()
	}
	digest := sha256.Sum256(body)
	payload, err := json.Marshal(notificationClaims{
		Issuer: key.ID().DID(), Audience: n.URL, Subject: n.Task, JTI: n.JTI,
		IssuedAt: now.Unix(), Expires: now.Add(maxTTL).Unix(), Digest: b64.EncodeToString(digest[:]),
	})
	if err != nil {
		return "", Errorf(CodeInternal, "notification: %v", err)
	}
	signature, err := signJWS(key, typNotification, payload)
	if err != nil {
		return "", Errorf(CodeInternal, "notification: %v", err)
	}
	return signature.Protected + "." + b64.EncodeToString(payload) + "." + signature.Signature, nil
}

// VerifyNotification checks the signature that came with a push notification:
// that it covers this body, was made for one of o.Audiences (the URL that the
// receiver registered), and is in force. Whether its Issuer is a node that the
// receiver knows, and whether it saw the JTI before, is for the receiver.
func VerifyNotification(token string, body []byte, o VerifyOptions) (Notification, error) {
	if len(token) > maxNotificationToken {
		return Notification{}, Errorf(CodeTooLarge, "the signature is longer than %d bytes", maxNotificationToken)
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return Notification{}, Errorf(CodeSignatureInvalid, "not a signature of a notification")
	}
	payload, err := b64.DecodeString(parts[1])
	if err != nil {
		return Notification{}, Errorf(CodeSignatureInvalid, "the signature is not base64url")
	}
	signature := jws{Protected: parts[0], Signature: parts[2]}
	signer, did, err := signature.issuer(typNotification)
	if err != nil {
		return Notification{}, err
	}
	if !signature.verify(signer, payload) {
		return Notification{}, Errorf(CodeSignatureInvalid, "the signature is not its issuer's")
	}
	var c notificationClaims
	if err := json.Unmarshal(payload, &c); err != nil {
		return Notification{}, Errorf(CodeSignatureInvalid, "the claims are not what is expected")
	}
	digest := sha256.Sum256(body)
	switch {
	case c.Issuer != did:
		return Notification{}, Errorf(CodeSignatureInvalid, "the signature is not its issuer's")
	case c.Digest != b64.EncodeToString(digest[:]):
		return Notification{}, Errorf(CodeSignatureInvalid, "the signature is of another body")
	}
	claims := Claims{Audience: c.Audience, IssuedAt: c.IssuedAt, Expires: c.Expires}
	if err := claims.checkFor(o); err != nil {
		return Notification{}, err
	}
	return Notification{Issuer: signer, URL: c.Audience, Task: c.Subject, JTI: c.JTI}, nil
}
