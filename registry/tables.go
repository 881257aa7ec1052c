package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/identity"
)

// The tables in the admission rules' state: JSON rows under these keys.
const (
	clusterKey   = "cluster"
	memberPrefix = "member/" // + peer ID
	agentPrefix  = "agent/"  // + peer ID
	keyPrefix    = "key/"    // + key ID
	tenantPrefix = "tenant/" // + name
	policyKey    = "policy"  // of the base; + "/" + layer
	invitePrefix = "invite/" // + the invitation's key as a peer ID
	epochKey     = "epoch"   // the one in force; missing while it is the first
	epochPast    = "epoch/"  // + number, 16 hex digits: those before
	// What was spent of each block of a mandate, by its id.
	mandatePrefix = "mandate/"
	// Blocks of mandates that were revoked, by their id.
	revokedPrefix = "revoked/"
	rolePrefix    = "role/" // + principal; the only place that holds an agent's or key's roles
)

func policyRow(layer string) string {
	if layer == LayerBase {
		return policyKey
	}
	return policyKey + "/" + layer
}

// grants is a row of the table of roles.
type grants struct {
	Roles []string `json:"roles"` // sorted
}

// brokenError says that a row cannot be read: the store is damaged.
type brokenError struct {
	key string
	err error
}

func (e *brokenError) Error() string { return fmt.Sprintf("registry row %s: %v", e.key, e.err) }
func (e *brokenError) Unwrap() error { return e.err }

// get reads a row, or returns [ErrNotFound].
func get[T any](tx audit.Tx, key string) (row T, err error) {
	value := tx.Get(key)
	if value == nil {
		return row, ErrNotFound
	}
	return decode[T](key, value)
}

// remembered works a value out of the state, once until the state is written.
// Nobody may change what it returns.
func remembered[T any](tx audit.Tx, name string, work func() (T, error)) (T, error) {
	memo, ok := tx.(audit.Memo)
	if !ok {
		return work()
	}
	if value, ok := memo.Remembered(name).(T); ok {
		return value, nil
	}
	value, err := work()
	if err == nil {
		memo.Remember(name, value)
	}
	return value, err
}

// put writes a row. Its JSON is deterministic: members in the order of the
// struct, maps sorted by key (I4).
func put(tx audit.Tx, key string, row any) error {
	value, err := json.Marshal(row)
	if err != nil {
		return &brokenError{key: key, err: err}
	}
	return tx.Put(key, value)
}

// each reads the rows with a prefix, in the order of their keys.
func each[T any](tx audit.Tx, prefix string) (rows []T, err error) {
	err = tx.Each(prefix, func(key string, value []byte) error {
		row, err := decode[T](key, value)
		rows = append(rows, row)
		return err
	})
	return rows, err
}

func rolesOf(tx audit.Tx, principal string) ([]string, error) {
	g, err := get[grants](tx, rolePrefix+principal)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	return g.Roles, err
}

// putRoles keeps the table canonical: sorted, each once, no empty row.
func putRoles(tx audit.Tx, principal string, roles []string) error {
	roles = slices.Compact(slices.Sorted(slices.Values(roles)))
	if len(roles) == 0 {
		return tx.Delete(rolePrefix + principal)
	}
	return put(tx, rolePrefix+principal, grants{Roles: roles})
}

func agentOf(tx audit.Tx, id identity.ID) (Agent, error) {
	a, err := get[Agent](tx, agentPrefix+string(id))
	if err == nil {
		a.Roles, err = rolesOf(tx, a.Principal().String())
	}
	return a, err
}

func keyOf(tx audit.Tx, id string) (Key, error) {
	k, err := get[Key](tx, keyPrefix+id)
	if err == nil {
		k.Roles, err = rolesOf(tx, k.Principal().String())
	}
	return k, err
}

// standing is what the tables say of a principal at some time.
type standing struct {
	principal identity.Principal
	inForce   bool
}

// standingOf looks a principal up by the name that logs use; [ErrNotFound] if
// nobody has it.
func standingOf(tx audit.Tx, name string, at time.Time) (standing, error) {
	kind, rest, _ := cut(name)
	switch kind {
	case identity.Agent:
		id, err := identity.FromDID(rest)
		if err != nil {
			return standing{}, ErrNotFound
		}
		a, err := agentOf(tx, id)
		return standing{a.Principal(), a.inForce(at)}, err
	case identity.Service:
		k, err := keyOf(tx, rest)
		return standing{k.Principal(), k.inForce(at)}, err
	case identity.Node:
		id, err := identity.FromDID(rest)
		if err != nil {
			return standing{}, ErrNotFound
		}
		m, err := get[Member](tx, memberPrefix+string(id))
		return standing{identity.Principal{Kind: identity.Node, Name: m.ID.DID()}, true}, err
	}
	return standing{}, ErrNotFound
}

// cut takes a principal's name apart.
func cut(name string) (kind identity.PrincipalKind, rest string, ok bool) {
	before, rest, ok := strings.Cut(name, ":")
	return identity.PrincipalKind(before), rest, ok
}
