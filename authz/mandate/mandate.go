// Package mandate says on whose behalf a request comes: a chain of blocks, each
// signed with an Ed25519 key, in which every holder may hand on at most what he
// was given.
//
// The root grants ([Grant]), a holder narrows for the next one ([Narrow]), and
// whoever is shown the chain checks all of it without asking anybody
// ([Verify]). Whether the keys are in force is the caller's question. The
// format is in docs/mandate.md, its vectors in testdata.
package mandate

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/agenticraft/node/authz/destination"
	"github.com/agenticraft/node/identity"
)

// The ways in which a chain can be wrong.
var (
	ErrMalformed = errors.New("malformed mandate")
	ErrTooDeep   = errors.New("mandate too deep")
	ErrSignature = errors.New("mandate signature is wrong")
	ErrBroken    = errors.New("mandate chain is broken")              // a block does not continue the one before it
	ErrCycle     = errors.New("mandate comes back to an earlier key") // or stays at one
	ErrWider     = errors.New("mandate grants more than was given")
	ErrTime      = errors.New("mandate is not valid now")
	ErrAudience  = errors.New("mandate is for somebody else")
	ErrExceeded  = errors.New("mandate does not cover this")
)

// MaxDepth is how often a grant can be handed on.
const MaxDepth = 4

const (
	maxBlocks = MaxDepth + 1
	maxTTL    = 90 * 24 * time.Hour
	skew      = 60 * time.Second
)

// Terms is what a block grants. In [Narrow] the zero value of a field means as
// before, but for Depth; a Network that is empty and not nil is none.
type Terms struct {
	Actions   []string // such as "exec.run"; a root names at least one
	Languages []string // that may be run; a root names at least one
	Network   []string // patterns HOST:PORT of what runs may reach; of a root, nil: nothing
	Limits    Limits   // each at most; 0: what policy allows the root
	Budget    Budget   // of all that is done under the block; 0: not counted
	Depth     int      // how often the holder may hand it on; 0: not at all
	NotAfter  time.Time
}

// Limits are ceilings of one execution. Zero is no ceiling of the mandate's own.
type Limits struct {
	CodeBytes     int64 `json:"code_bytes,omitempty"`
	CPUPercent    int64 `json:"cpu_percent,omitempty"` // of one core
	FileSizeBytes int64 `json:"file_size_bytes,omitempty"`
	MemoryBytes   int64 `json:"memory_bytes,omitempty"`
	OutputBytes   int64 `json:"output_bytes,omitempty"`
	Processes     int64 `json:"processes,omitempty"`
	TimeoutMS     int64 `json:"timeout_ms,omitempty"`
}

// Budget bounds the sum of executions under a block and all blocks below it.
type Budget struct {
	Runs   int64 `json:"runs,omitempty"`
	WallMS int64 `json:"wall_ms,omitempty"` // of their time-outs
}

// Root is who grants what to whom.
type Root struct {
	Cluster string      // the audience, "agenticraft:<cluster>"
	Tenant  string      // in which the holder may act
	To      identity.ID // the first holder
	Terms
}

// Grant makes a mandate of one block, signed by its root.
func Grant(key *identity.Key, root Root) (string, error) {
	p := payload{
		By: key.ID().DID(), Cluster: root.Cluster, Tenant: root.Tenant, To: root.To.DID(),
		IssuedAt: time.Now().Unix(), Nonce: nonce(), Version: version,
	}
	p.set(root.Terms)
	return seal(key, "", p)
}

// Narrow hands a mandate on: the holder's key signs a block for the next one.
// It refuses, with [ErrWider], terms that were not given.
func Narrow(key *identity.Key, parent string, to identity.ID, t Terms) (string, error) {
	blocks, err := parse(parent)
	if err != nil {
		return "", err
	}
	last := blocks[len(blocks)-1]
	p := payload{
		By: key.ID().DID(), Cluster: last.Cluster, Tenant: last.Tenant, To: to.DID(),
		IssuedAt: time.Now().Unix(), Nonce: nonce(), Previous: last.id, Version: version,
	}
	p.set(t.inherit(last.terms()))
	return seal(key, parent, p)
}

// seal signs a block, and gives it out only in a chain that verifies.
func seal(key *identity.Key, parent string, p payload) (string, error) {
	text, err := p.sign(key, parent)
	if err != nil {
		return "", err
	}
	if _, err := verifyChain(text, Options{Cluster: p.Cluster}, nil); err != nil {
		return "", err
	}
	return text, nil
}

// Options of [Verify].
type Options struct {
	Cluster string      // the audience that the chain must name
	Holder  identity.ID // who shows it and has proved that; empty: not checked
	Now     time.Time   // zero: the clock's
}

// Verified is what a chain that holds grants to its holder.
type Verified struct {
	Root   identity.ID // on whose behalf the holder acts
	Holder identity.ID
	Tenant string
	Chain  []Link // from the root down
	Terms  Terms  // of the last block, which is the narrowest
}

// Link is one block of a chain.
type Link struct {
	ID     string      // hex SHA-256 of the block's payload
	By, To identity.ID // who granted what this block says, and to whom
	Budget Budget
}

// Verify checks the whole chain: form, depth, signatures, that each block
// continues the one before it and grants no more, time, audience, and holder.
// Any error comes with nothing granted.
//
// INVARIANT: I9, authority only narrows along a chain.
func Verify(text string, o Options) (Verified, error) { return verifyChain(text, o, &known) }

func verifyChain(text string, o Options, known *signatures) (Verified, error) {
	blocks, err := parse(text)
	if err != nil {
		return Verified{}, err
	}
	now := o.Now
	if now.IsZero() {
		now = time.Now()
	}
	// Cheap checks first: signatures are the dearest part.
	seen := []string{blocks[0].By}
	for i, b := range blocks {
		switch {
		case b.Cluster != o.Cluster:
			return Verified{}, fmt.Errorf("%w: cluster %q", ErrAudience, b.Cluster)
		case slices.Contains(seen, b.To):
			return Verified{}, fmt.Errorf("%w: block %d", ErrCycle, i)
		}
		seen = append(seen, b.To)
		if err := b.checkTime(now); err != nil {
			return Verified{}, fmt.Errorf("block %d: %w", i, err)
		}
		if i == 0 {
			if b.Previous != "" {
				return Verified{}, fmt.Errorf("%w: the first block continues another", ErrBroken)
			}
			continue
		}
		before := blocks[i-1]
		if b.Previous != before.id || b.By != before.To || b.Tenant != before.Tenant {
			return Verified{}, fmt.Errorf("%w: block %d", ErrBroken, i)
		}
		if what := before.terms().wider(b.terms()); what != "" {
			return Verified{}, fmt.Errorf("%w: block %d: %s", ErrWider, i, what)
		}
	}
	v := Verified{Tenant: blocks[0].Tenant, Terms: blocks[len(blocks)-1].terms()}
	by, err := identity.FromDID(blocks[0].By)
	if err != nil {
		return Verified{}, fmt.Errorf("%w: block 0: by: %w", ErrMalformed, err)
	}
	var seals []sealed
	for i, b := range blocks {
		to, err := identity.FromDID(b.To)
		if err != nil {
			return Verified{}, fmt.Errorf("%w: block %d: to: %w", ErrMalformed, i, err)
		}
		seals = append(seals, sealed{by: by, raw: b.raw, signature: b.signature, id: b.id})
		v.Chain = append(v.Chain, Link{ID: b.id, By: by, To: to, Budget: b.Budget})
		by = to // who signs the next block, as was checked above
	}
	if i := firstBad(seals, known); i >= 0 {
		return Verified{}, fmt.Errorf("%w: block %d", ErrSignature, i)
	}
	v.Root, v.Holder = v.Chain[0].By, v.Chain[len(v.Chain)-1].To
	if o.Holder != "" && o.Holder != v.Holder {
		return Verified{}, fmt.Errorf("%w: the holder is another key", ErrAudience)
	}
	return v, nil
}

// Cluster is the audience that a chain names. It verifies nothing else.
func Cluster(text string) (string, error) {
	blocks, err := parse(text)
	if err != nil {
		return "", err
	}
	return blocks[0].Cluster, nil
}

// Block is one block of a chain, as whoever signed it shows it to revoke it.
type Block struct {
	ID      string // hex SHA-256 of Payload
	Payload []byte
	Tenant  string
}

// BlockBy is the first block of a chain that a key signed. It verifies the form
// only.
func BlockBy(text string, by identity.ID) (Block, error) {
	blocks, err := parse(text)
	if err != nil {
		return Block{}, err
	}
	for _, b := range blocks {
		if b.By == by.DID() {
			return Block{ID: b.id, Payload: b.raw, Tenant: b.Tenant}, nil
		}
	}
	return Block{}, fmt.Errorf("%w: no block was signed by %s", ErrBroken, by.DID())
}

// IsBlockID reports whether text has the form of a block's id.
func IsBlockID(text string) bool { return hexOf(text, sha256.Size) }

// Covers refuses, with [ErrExceeded], an act outside the mandate. A limit that
// is zero was not asked for and is not checked: whoever runs it caps it. Network
// are the destinations HOST:PORT that the run would reach.
func (v Verified) Covers(action, language string, asked Limits, network ...string) error {
	switch {
	case !slices.Contains(v.Terms.Actions, action):
		return fmt.Errorf("%w: action %q is not one of %v", ErrExceeded, action, v.Terms.Actions)
	case !slices.Contains(v.Terms.Languages, language):
		return fmt.Errorf("%w: language %.40q is not one of %v", ErrExceeded, language, v.Terms.Languages)
	}
	if left := destination.Covered(network, v.Terms.Network); len(left) < len(network) {
		return fmt.Errorf("%w: network %v is not within %v", ErrExceeded, network, v.Terms.Network)
	}
	ceilings := v.Terms.Limits.list()
	for i, ask := range asked.list() {
		if ceiling := ceilings[i].value; ceiling != 0 && ask.value > ceiling {
			return fmt.Errorf("%w: %s %d is more than %d", ErrExceeded, ask.name, ask.value, ceiling)
		}
	}
	return nil
}

// wider names what child grants beyond t; empty if nothing.
func (t Terms) wider(child Terms) string {
	within := func(child, parent int64) bool { return parent == 0 || child > 0 && child <= parent }
	for _, a := range child.Actions {
		if !slices.Contains(t.Actions, a) {
			return "action " + a
		}
	}
	for _, l := range child.Languages {
		if !slices.Contains(t.Languages, l) {
			return "language " + l
		}
	}
	if len(destination.Covered(child.Network, t.Network)) < len(child.Network) {
		return "network"
	}
	ceilings := t.Limits.list()
	for i, l := range child.Limits.list() {
		if !within(l.value, ceilings[i].value) {
			return l.name
		}
	}
	switch {
	case !within(child.Budget.Runs, t.Budget.Runs):
		return "budget of runs"
	case !within(child.Budget.WallMS, t.Budget.WallMS):
		return "budget of wall_ms"
	case child.Depth >= t.Depth:
		return "depth"
	case child.NotAfter.After(t.NotAfter):
		return "not-after"
	}
	return ""
}

// inherit fills what was left open with the parent's.
func (t Terms) inherit(parent Terms) Terms {
	if len(t.Actions) == 0 {
		t.Actions = parent.Actions
	}
	if len(t.Languages) == 0 {
		t.Languages = parent.Languages
	}
	if t.Network == nil {
		t.Network = parent.Network
	}
	if t.NotAfter.IsZero() {
		t.NotAfter = parent.NotAfter
	}
	own, given := t.Limits.fields(), parent.Limits.fields()
	for i := range own {
		if *own[i] == 0 {
			*own[i] = *given[i]
		}
	}
	if t.Budget.Runs == 0 {
		t.Budget.Runs = parent.Budget.Runs
	}
	if t.Budget.WallMS == 0 {
		t.Budget.WallMS = parent.Budget.WallMS
	}
	return t
}

var limitNames = [...]string{"code_bytes", "cpu_percent", "file_size_bytes", "memory_bytes", "output_bytes", "processes", "timeout_ms"}

// fields are the limits in the order of limitNames.
func (l *Limits) fields() [len(limitNames)]*int64 {
	return [...]*int64{&l.CodeBytes, &l.CPUPercent, &l.FileSizeBytes, &l.MemoryBytes, &l.OutputBytes, &l.Processes, &l.TimeoutMS}
}

type limit struct {
	name  string
	value int64
}

func (l Limits) list() (out [len(limitNames)]limit) {
	for i, field := range l.fields() {
		out[i] = limit{limitNames[i], *field}
	}
	return out
}

// nonce makes two grants of the same terms two, with a budget each.
func nonce() string {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		panic("internal error: no randomness: " + err.Error()) // crypto/rand never fails
	}
	return hex.EncodeToString(b[:])
}
