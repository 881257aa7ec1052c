package mandate

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/agenticraft/node/authz/destination"
	"github.com/agenticraft/node/identity"
)

const (
	version   = 1
	prefix    = "acm1"
	domain    = "agenticraft/mandate/v1"
	maxText   = 16 << 10 // bytes of a chain
	maxName   = 128      // bytes of a cluster, tenant, action, language, did:key
	maxNames  = 32
	maxNumber = 1 << 53 // what every JSON reader keeps exact
)

// payload is a block as it is signed: canonical JSON (RFC 8785), for which the
// members stand here in the order of their names.
type payload struct {
	Actions   []string `json:"actions"` // sorted
	Budget    Budget   `json:"budget"`
	By        string   `json:"by"`
	Cluster   string   `json:"cluster"`
	Depth     int      `json:"depth"`
	Expires   int64    `json:"exp"` // Unix seconds
	IssuedAt  int64    `json:"iat"`
	Languages []string `json:"languages"` // sorted
	Limits    Limits   `json:"limits"`
	Network   []string `json:"network,omitempty"` // sorted
	Nonce     string   `json:"nonce"`
	Previous  string   `json:"prev,omitempty"` // id of the block before
	Tenant    string   `json:"tenant"`
	To        string   `json:"to"`
	Version   int      `json:"v"`
}

// block is a payload as it was received.
type block struct {
	payload
	raw       []byte
	signature []byte
	id        string // hex SHA-256 of raw
}

var encoding = base64.RawURLEncoding.Strict()

// parse reads a chain and checks the form of its blocks, but no signature. It
// refuses long chains before it looks at any block.
func parse(text string) ([]block, error) {
	if len(text) > maxText {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooDeep, len(text), maxText)
	}
	if n := strings.Count(text, "."); n > 2*maxBlocks {
		return nil, fmt.Errorf("%w: %d blocks, at most %d", ErrTooDeep, n/2, maxBlocks)
	}
	parts := strings.Split(text, ".")
	if parts[0] != prefix || len(parts) < 3 || len(parts)%2 != 1 {
		return nil, fmt.Errorf("%w: not %s.PAYLOAD.SIGNATURE…", ErrMalformed, prefix)
	}
	var blocks []block
	for i := 1; i < len(parts); i += 2 {
		b, err := readBlock(parts[i], parts[i+1])
		if err != nil {
			return nil, fmt.Errorf("%w: block %d: %w", ErrMalformed, len(blocks), err)
		}
		blocks = append(blocks, b)
	}
	return blocks, nil
}

func readBlock(text, signature string) (b block, err error) {
	if b.raw, err = encoding.DecodeString(text); err != nil {
		return b, fmt.Errorf("payload is not base64url")
	}
	if b.signature, err = encoding.DecodeString(signature); err != nil {
		return b, fmt.Errorf("signature is not base64url")
	}
	if err := json.Unmarshal(b.raw, &b.payload); err != nil {
		return b, fmt.Errorf("payload is not a block")
	}
	// What does not read and write the same holds more than we understand.
	again, err := json.Marshal(b.payload)
	if err != nil || !bytes.Equal(again, b.raw) {
		return b, fmt.Errorf("payload is not canonical or has unknown members")
	}
	sum := sha256.Sum256(b.raw)
	b.id = hex.EncodeToString(sum[:])
	return b, b.check()
}

// check holds the form of one block.
func (p payload) check() error {
	switch {
	case p.Version != version:
		return fmt.Errorf("version %d is not known", p.Version)
	case !plain(p.Cluster), !plain(p.Tenant), !plain(p.By), !plain(p.To):
		return fmt.Errorf("by, to, cluster or tenant is missing or malformed")
	case !names(p.Actions), !names(p.Languages):
		return fmt.Errorf("actions or languages are missing, not sorted or malformed")
	case len(p.Network) > 0 && !patterns(p.Network):
		return fmt.Errorf("network is not sorted or holds what is no pattern HOST:PORT")
	case p.Depth < 0 || p.Depth > MaxDepth:
		return fmt.Errorf("depth is not 0 to %d", MaxDepth)
	case !hexOf(p.Nonce, 16), p.Previous != "" && !hexOf(p.Previous, sha256.Size):
		return fmt.Errorf("nonce or prev is malformed")
	case p.IssuedAt <= 0, p.Expires <= p.IssuedAt, p.Expires > maxNumber, p.Expires-p.IssuedAt > int64(maxTTL/time.Second):
		return fmt.Errorf("exp is not after iat, or more than %v", maxTTL)
	}
	numbers := []int64{p.Budget.Runs, p.Budget.WallMS}
	for _, l := range p.Limits.list() {
		numbers = append(numbers, l.value)
	}
	if slices.Min(numbers) < 0 || slices.Max(numbers) > maxNumber {
		return fmt.Errorf("a number is out of range")
	}
	return nil
}

func (p payload) checkTime(now time.Time) error {
	switch {
	case now.Add(skew).Unix() < p.IssuedAt:
		return fmt.Errorf("%w: it begins later", ErrTime)
	case now.Unix() >= p.Expires:
		return fmt.Errorf("%w: it has ended", ErrTime)
	}
	return nil
}

func (p payload) terms() Terms {
	return Terms{
		Actions: p.Actions, Languages: p.Languages, Network: p.Network, Limits: p.Limits, Budget: p.Budget,
		Depth: p.Depth, NotAfter: time.Unix(p.Expires, 0),
	}
}

func (p *payload) set(t Terms) {
	p.Actions, p.Languages = sorted(t.Actions), sorted(t.Languages)
	p.Network = sorted(t.Network)
	p.Limits, p.Budget, p.Depth, p.Expires = t.Limits, t.Budget, t.Depth, t.NotAfter.Unix()
	if p.Expires == p.IssuedAt && t.NotAfter.After(time.Unix(p.IssuedAt, 0)) {
		p.Expires++ // it ends within the second in which it begins
	}
}

// sign appends the block to a chain.
func (p payload) sign(key *identity.Key, parent string) (string, error) {
	raw, err := json.Marshal(p)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if parent == "" {
		parent = prefix
	}
	return parent + "." + encoding.EncodeToString(raw) + "." + encoding.EncodeToString(key.Sign(domain, raw)), nil
}

func sorted(list []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(list)))
}

// names reports whether list is a set of names, sorted, not empty.
func names(list []string) bool {
	if len(list) == 0 || len(list) > maxNames || slices.ContainsFunc(list, func(s string) bool { return !plain(s) }) {
		return false
	}
	for i := range list[1:] {
		if list[i] >= list[i+1] {
			return false
		}
	}
	return true
}

// patterns reports whether list is a set of patterns of destinations in their one
// form, sorted.
func patterns(list []string) bool {
	if len(list) > maxNames {
		return false
	}
	for i, text := range list {
		if p, err := destination.ParsePattern(text); err != nil || p != text || i > 0 && list[i-1] >= text {
			return false
		}
	}
	return true
}

// plain keeps names to letters that every JSON writer writes the same.
func plain(s string) bool {
	return s != "" && len(s) <= maxName && !strings.ContainsFunc(s, func(r rune) bool {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		return !letter && !strings.ContainsRune("._:@-", r)
	})
}

func hexOf(s string, size int) bool {
	raw, err := hex.DecodeString(s)
	return err == nil && len(raw) == size && strings.ToLower(s) == s
}
