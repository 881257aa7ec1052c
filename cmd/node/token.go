package main

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/crc32"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/registry"
)

// inviteToken is what an invitation hands over: one line that lets one node
// into one cluster. Whoever has it can use it once, before its end.
type inviteToken struct {
	V       int      `json:"v"`
	Cluster string   `json:"cluster"`
	Origin  string   `json:"origin"`
	Role    string   `json:"role"`
	Expires int64    `json:"expires"` // Unix seconds
	Seed    []byte   `json:"seed"`    // of the invitation's key
	Peers   []string `json:"peers"`   // multiaddrs of keepers, with /p2p/ID
}

// The text is the prefix and the base64url of JSON and its CRC-32C, which finds
// what was lost or changed in copying.
const (
	tokenPrefix  = "acjoin1_"
	tokenVersion = 1
	maxToken     = 16 << 10 // bytes of text
	maxTokenAddr = 64
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (t inviteToken) encode() (string, error) {
	t.V = tokenVersion
	text, err := json.Marshal(t)
	if err != nil {
		return "", err
	}
	text = binary.BigEndian.AppendUint32(text, crc32.Checksum(text, castagnoli))
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(text), nil
}

// parseToken reads a token; it says nothing of whether the cluster will take it.
func parseToken(text string) (inviteToken, error) {
	var t inviteToken
	bad := func(why string) (inviteToken, error) {
		return inviteToken{}, &a2a.Error{Code: "usage", Message: "this is not a whole token: " + why, Hint: "agenticraft invite prints one; give it as it is, in one piece"}
	}
	text = strings.TrimSpace(text)
	rest, ok := strings.CutPrefix(text, tokenPrefix)
	if !ok || len(text) > maxToken {
		return bad("it does not begin with " + tokenPrefix + " or is too long")
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(rest)
	if err != nil || len(raw) < 4 {
		return bad("it holds other characters, or its end is missing")
	}
	body, sum := raw[:len(raw)-4], binary.BigEndian.Uint32(raw[len(raw)-4:])
	if crc32.Checksum(body, castagnoli) != sum {
		return bad("its check sum does not fit")
	}
	if err := json.Unmarshal(body, &t); err != nil || t.V != tokenVersion {
		return bad("it is of another version")
	}
	_, err = identity.FromSeed(t.Seed)
	if err != nil || t.Cluster == "" || t.Origin == "" || len(t.Peers) == 0 || len(t.Peers) > maxTokenAddr {
		return bad("something in it is missing")
	}
	switch t.Role {
	case registry.Keeper, registry.Worker, registry.Auditor:
	default:
		return bad("it names no role")
	}
	if _, err := parsePeers(t.Peers); err != nil {
		return bad("an address is malformed")
	}
	return t, nil
}

func (t inviteToken) expired(now time.Time) bool { return now.Unix() >= t.Expires }

// parsePeers reads multiaddrs that end in /p2p/ID.
func parsePeers(texts []string) (map[identity.ID][]string, error) {
	out := map[identity.ID][]string{}
	for _, text := range texts {
		addr, name, ok := cutLast(text, "/p2p/")
		if !ok || !strings.HasPrefix(addr, "/") {
			return nil, errors.New("an address does not end in /p2p/ID")
		}
		id, err := identity.ParseID(name)
		if err != nil {
			return nil, err
		}
		out[id] = append(out[id], addr)
	}
	return out, nil
}

// joinPeers writes addresses with their IDs, as parsePeers reads them.
func joinPeers(peers map[identity.ID][]string) []string {
	var out []string
	for _, id := range slices.Sorted(maps.Keys(peers)) {
		for _, addr := range peers[id] {
			out = append(out, addr+"/p2p/"+string(id))
		}
	}
	return out
}
