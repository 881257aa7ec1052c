package authz

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"math/big"
	"strings"
	"time"

	"github.com/agenticraft/node/identity"
)

var (
	// ErrCredentials is the one answer to everything about a credential that
	// depends on our state: unknown, wrong, expired and revoked look alike.
	ErrCredentials = errors.New("credentials refused")
	// ErrKeySyntax is returned for text that cannot be an API key at all, a
	// mistyped one included.
	ErrKeySyntax = errors.New("not an API key")
)

// An API key is "ac_" + id + "_" + secret + check: an id of 10 base-32
// characters (50 bits, not secret), 256 random bits as 43 base-62 characters,
// and 6 more that catch typing errors and let scanners find leaked keys.
const (
	keyPrefix   = "ac_"
	keyIDLen    = 10
	secretLen   = 43 // 62^43 > 2^256
	checkLen    = 6  // 62^6 > 2^32
	secretBytes = 32
	keyLen      = len(keyPrefix) + keyIDLen + 1 + secretLen + checkLen
)

const digits32 = "abcdefghijklmnopqrstuvwxyz234567"

var keyIDs = base32.NewEncoding(digits32).WithPadding(base32.NoPadding)

func isKeyID(id string) bool { return len(id) == keyIDLen && strings.Trim(id, digits32) == "" }

// NewAPIKey makes a key: the text, to be shown once, its id, and the hash that
// is all a cluster keeps of it.
func NewAPIKey() (text, id string, hash [32]byte, err error) {
	var random [7]byte
	if _, err := rand.Read(random[:]); err != nil {
		return "", "", hash, fmt.Errorf("make API key: %w", err)
	}
	id = keyIDs.EncodeToString(random[:])[:keyIDLen]
	text, hash, err = RotateAPIKey(id)
	return text, id, hash, err
}

// RotateAPIKey makes another secret for the key id.
func RotateAPIKey(id string) (text string, hash [32]byte, err error) {
	if !isKeyID(id) {
		return "", hash, fmt.Errorf("rotate API key: %w: malformed id", ErrKeySyntax)
	}
	var random [secretBytes]byte
	if _, err := rand.Read(random[:]); err != nil {
		return "", hash, fmt.Errorf("make API key: %w", err)
	}
	body := keyPrefix + id + "_" + base62(new(big.Int).SetBytes(random[:]), secretLen)
	text = body + checksum(body)
	return text, sha256.Sum256([]byte(text)), nil
}

// ParseAPIKey checks the form of a key, typing errors included, and returns its
// id and hash. It says nothing about whether the key is any good.
func ParseAPIKey(text string) (id string, hash [32]byte, err error) {
	if len(text) != keyLen || text[:len(keyPrefix)] != keyPrefix || text[len(keyPrefix)+keyIDLen] != '_' {
		return "", hash, ErrKeySyntax
	}
	id = text[len(keyPrefix):][:keyIDLen]
	if !isKeyID(id) {
		return "", hash, ErrKeySyntax
	}
	body, check := text[:keyLen-checkLen], text[keyLen-checkLen:]
	secret := body[len(body)-secretLen:]
	if strings.Trim(secret, digits62) != "" || subtle.ConstantTimeCompare([]byte(check), []byte(checksum(body))) != 1 {
		return "", hash, ErrKeySyntax
	}
	return id, sha256.Sum256([]byte(text)), nil
}

// KeyRecord is what a cluster knows of an API key.
type KeyRecord struct {
	Hash      [32]byte // SHA-256 of the whole text
	Before    [32]byte // of the text before the last rotation, which is good until Until; zero: none
	Until     time.Time
	Principal identity.Principal
	Expires   time.Time // zero: never
	Revoked   bool
}

// APIKeysConfig says where keys are looked up.
type APIKeysConfig struct {
	// Lookup finds a key by its id. It may be called concurrently.
	Lookup func(id string) (KeyRecord, bool)
	Log    *slog.Logger // nil: discarded
}

// APIKeys proves callers by API key. It may be used concurrently and takes a
// fixed amount of memory, whoever knocks how often.
type APIKeys struct {
	lookup   func(id string) (KeyRecord, bool)
	log      *slog.Logger
	throttle throttle
}

// NewAPIKeys returns an authenticator over a table of keys.
func NewAPIKeys(cfg APIKeysConfig) (*APIKeys, error) {
	if cfg.Lookup == nil {
		return nil, errors.New("API keys: Lookup is missing")
	}
	a := &APIKeys{lookup: cfg.Lookup, log: cmp.Or(cfg.Log, slog.New(slog.DiscardHandler))}
	a.throttle.init()
	return a, nil
}

// Authenticate proves the caller at address source (without port) by the text
// of an API key. Errors are [ErrKeySyntax], [ErrCredentials] and, after many
// failures from one source with one key, a [*ThrottledError]. A right key
// passes however often wrong ones were tried, so nobody can lock its owner out.
func (a *APIKeys) Authenticate(ctx context.Context, source, text string) (identity.Principal, error) {
	id, hash, err := ParseAPIKey(text)
	if err != nil {
		return identity.Principal{}, a.failed(ctx, source, "", err)
	}
	record, found := a.lookup(id)
	// Every key takes the same steps, so that time does not tell which ids exist.
	now := time.Now()
	before := subtle.ConstantTimeCompare(hash[:], record.Before[:]) & inTime(now, record.Until)
	same := subtle.ConstantTimeCompare(hash[:], record.Hash[:])|before == 1
	expired := !record.Expires.IsZero() && !now.Before(record.Expires)
	if !found || !same || expired || record.Revoked || record.Principal.IsZero() {
		a.log.DebugContext(ctx, "API key refused", "key", id, "found", found, "matches", same, "expired", expired, "revoked", record.Revoked)
		return identity.Principal{}, a.failed(ctx, source, id, ErrCredentials)
	}
	return record.Principal, nil
}

func inTime(now, until time.Time) int {
	if now.Before(until) {
		return 1
	}
	return 0
}

// failed counts a failure and answers with it, or with the throttle.
func (a *APIKeys) failed(ctx context.Context, source, id string, err error) error {
	wait := a.throttle.take(source, id, time.Now())
	if wait <= 0 {
		return err
	}
	a.log.DebugContext(ctx, "API key failures throttled", "source", source, "key", id, "retry_after", wait)
	return &ThrottledError{RetryAfter: wait, err: err}
}

const digits62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// checksum is the CRC-32 of a key's body; it guards against typing errors only.
func checksum(body string) string {
	return base62(new(big.Int).SetUint64(uint64(crc32.ChecksumIEEE([]byte(body)))), checkLen)
}

// base62 writes n, which it consumes, in exactly width digits.
func base62(n *big.Int, width int) string {
	out := make([]byte, width)
	base, digit := big.NewInt(62), new(big.Int)
	for i := width - 1; i >= 0; i-- {
		n.DivMod(n, base, digit)
		out[i] = digits62[digit.Int64()]
	}
	return string(out)
}
