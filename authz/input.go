package authz

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/agenticraft/node/authz/destination"
)

// maxInputBytes bounds the input document of one decision as JSON.
const maxInputBytes = 64 << 10

// ErrInput is returned for a query whose facts do not fit an input document.
var ErrInput = errors.New("query too large")

// input is the document that the policy sees; docs/policy.md describes it. Its
// JSON is hashed, its AST is evaluated, and a test holds the two equal.
type input struct {
	inputHead
	Now int64 `json:"now"` // Unix seconds
	inputTail
}

// The time stands between the rest, which is the same for every second.
type (
	inputHead struct {
		Action    string            `json:"action"`
		Principal inputPrincipal    `json:"principal"`
		Tenant    string            `json:"tenant"`
		Suspended bool              `json:"suspended"`
		Ceiling   *Ceiling          `json:"ceiling,omitempty"` // of the tenant, if it has one of its own
		Vouched   bool              `json:"vouched"`
		Via       string            `json:"via"`
		Labels    map[string]string `json:"labels"`
	}
	inputTail struct {
		Node      inputNode       `json:"node"`
		Execution *inputExecution `json:"execution,omitempty"`
	}
)

type inputPrincipal struct {
	Kind   string            `json:"kind"`
	Name   string            `json:"name"`
	Tenant string            `json:"tenant"`
	Roles  map[string]bool   `json:"roles"`
	Labels map[string]string `json:"labels"`
	Scopes []string          `json:"scopes,omitempty"` // of an API key that is for some actions only
	// What follows from the above, so that policies need not search for it.
	OnlyRole   string `json:"only_role"`  // if there is exactly one
	Registered bool   `json:"registered"` // kind, name and tenant are there
}

type inputNode struct {
	ID         string `json:"id"`
	Tier       string `json:"tier"`
	RunAllowed bool   `json:"run_allowed"`
}

type inputExecution struct {
	Language      string             `json:"language"`
	Sandbox       string             `json:"sandbox"`
	Network       string             `json:"network"`
	Destinations  []inputDestination `json:"destinations"`
	DataClass     string             `json:"data_class"`
	MemoryBytes   int64              `json:"memory_bytes"`
	TimeoutMS     int64              `json:"timeout_ms"`
	CPUPercent    int64              `json:"cpu_percent"`
	OutputBytes   int64              `json:"output_bytes"`
	FileSizeBytes int64              `json:"file_size_bytes"`
	Processes     int64              `json:"processes"`
	CodeBytes     int64              `json:"code_bytes"`
	Least         int64              `json:"least"` // the smallest of the numbers above: none may be below zero
	Require       []string           `json:"require"`
}

// inputDestination is a place in the network that the run would reach, with all
// patterns that cover it.
type inputDestination struct {
	Name    string          `json:"name"` // HOST:PORT
	Matches map[string]bool `json:"matches"`
}

const (
	sandboxAuto  = "auto"
	unclassified = "unclassified"
)

// newInput gives unset facts their meaning: no tenant is the caller's own, no
// sandbox is "auto", no network is "none".
func newInput(q Query) input {
	in := input{Now: q.Now.Unix()}
	in.inputHead = inputHead{
		Action: q.Action,
		Principal: inputPrincipal{
			Kind: string(q.Principal.Kind), Name: q.Principal.Name, Tenant: q.Principal.Tenant,
			Roles: make(map[string]bool, len(q.Principal.Roles)), Labels: orEmpty(q.Principal.Labels),
			Scopes: q.Principal.Scopes,
		},
		Tenant: or(q.Tenant, q.Principal.Tenant), Suspended: q.Suspended,
		Vouched: q.Vouched, Via: q.Via, Labels: orEmpty(q.Labels),
	}
	// A door that decides before a place is chosen names no node.
	in.Node = inputNode{ID: q.Node.ID, Tier: q.Node.Tier, RunAllowed: q.Node.RunAllowed || q.Node.ID == ""}
	for _, role := range q.Principal.Roles {
		in.Principal.Roles[role] = true
	}
	if len(in.Principal.Roles) == 1 {
		in.Principal.OnlyRole = q.Principal.Roles[0]
	}
	in.Principal.Registered = in.Principal.Kind != "" && in.Principal.Name != "" && in.Principal.Tenant != ""
	if e := q.Execution; e != nil {
		in.Execution = &inputExecution{
			Language: e.Language, Sandbox: or(e.Sandbox, sandboxAuto), Network: or(e.Network, destination.None),
			Destinations: []inputDestination{}, DataClass: or(e.DataClass, unclassified),
			MemoryBytes: e.MemoryBytes, TimeoutMS: e.TimeoutMS, CPUPercent: int64(e.CPUPercent),
			OutputBytes: e.OutputBytes, FileSizeBytes: e.FileSizeBytes, Processes: int64(e.Processes),
			CodeBytes: int64(e.CodeBytes), Require: append([]string{}, e.Require...),
			Least: min(e.MemoryBytes, e.TimeoutMS, int64(e.CPUPercent), e.OutputBytes, e.FileSizeBytes, int64(e.Processes), int64(e.CodeBytes)),
		}
		in.Execution.reach()
	}
	if !q.Ceiling.isZero() {
		in.Ceiling = &q.Ceiling
	}
	return in
}

// reach spells out the destinations. What is malformed is one that no pattern
// covers.
func (e *inputExecution) reach() {
	destinations, err := destination.Parse(e.Network)
	if err != nil {
		e.Destinations = []inputDestination{{Name: clip(e.Network), Matches: map[string]bool{}}}
		return
	}
	for _, name := range destinations {
		d := inputDestination{Name: name, Matches: map[string]bool{}}
		for _, p := range destination.Patterns(name) {
			d.Matches[p] = true
		}
		e.Destinations = append(e.Destinations, d)
	}
}

// facts are a query as policy is asked it.
type facts struct {
	query    Query
	in       input
	digest   string            // hex SHA-256 of the document's JSON
	whole    [sha256.Size]byte // the same
	timeless [sha256.Size]byte // SHA-256 of the document without its time
}

func newFacts(q Query) (f facts, err error) {
	f = facts{query: q, in: newInput(q)}
	head, err := json.Marshal(f.in.inputHead)
	if err != nil {
		return f, fmt.Errorf("encode input: %w", err)
	}
	tail, err := json.Marshal(f.in.inputTail)
	if err != nil {
		return f, fmt.Errorf("encode input: %w", err)
	}
	text := make([]byte, 0, len(head)+len(tail)+32)
	with := func(now string) []byte { // neither head nor tail is an empty object
		text = append(append(append(text[:0], head[:len(head)-1]...), `,"now":`...), now...)
		return append(append(text, ','), tail[1:]...)
	}
	f.timeless = sha256.Sum256(with("null"))
	whole := with(strconv.FormatInt(f.in.Now, 10))
	if len(whole) > maxInputBytes {
		return f, fmt.Errorf("%w: %d bytes, at most %d", ErrInput, len(whole), maxInputBytes)
	}
	f.whole = sha256.Sum256(whole)
	f.digest = hex.EncodeToString(f.whole[:])
	return f, nil
}

// value is the document as OPA evaluates it, built without a detour through
// JSON.
func (in input) value() ast.Value {
	principal := [][2]*ast.Term{
		member("kind", text(in.Principal.Kind)),
		member("name", text(in.Principal.Name)),
		member("tenant", text(in.Principal.Tenant)),
		member("roles", flags(in.Principal.Roles)),
		member("labels", texts(in.Principal.Labels)),
		member("only_role", text(in.Principal.OnlyRole)),
		member("registered", boolean(in.Principal.Registered)),
	}
	if len(in.Principal.Scopes) > 0 {
		principal = append(principal, member("scopes", list(in.Principal.Scopes)))
	}
	members := [][2]*ast.Term{
		member("action", text(in.Action)),
		member("principal", ast.ObjectTerm(principal...)),
		member("tenant", text(in.Tenant)),
		member("suspended", boolean(in.Suspended)),
		member("vouched", boolean(in.Vouched)),
		member("via", text(in.Via)),
		member("labels", texts(in.Labels)),
		member("now", integer(in.Now)),
		member("node", ast.ObjectTerm(
			member("id", text(in.Node.ID)),
			member("tier", text(in.Node.Tier)),
			member("run_allowed", boolean(in.Node.RunAllowed)),
		)),
	}
	if e := in.Execution; e != nil {
		members = append(members, member("execution", ast.ObjectTerm(
			member("language", text(e.Language)),
			member("sandbox", text(e.Sandbox)),
			member("network", text(e.Network)),
			member("destinations", destinations(e.Destinations)),
			member("data_class", text(e.DataClass)),
			member("memory_bytes", integer(e.MemoryBytes)),
			member("timeout_ms", integer(e.TimeoutMS)),
			member("cpu_percent", integer(e.CPUPercent)),
			member("output_bytes", integer(e.OutputBytes)),
			member("file_size_bytes", integer(e.FileSizeBytes)),
			member("processes", integer(e.Processes)),
			member("code_bytes", integer(e.CodeBytes)),
			member("least", integer(e.Least)),
			member("require", list(e.Require)),
		)))
	}
	if c := in.Ceiling; c != nil {
		members = append(members, member("ceiling", c.term()))
	}
	return ast.NewObject(members...)
}

// term is the ceiling as policy sees it. Only tenants that have one pay for the
// detour through JSON.
func (c *Ceiling) term() *ast.Term {
	raw, err := json.Marshal(c)
	if err != nil {
		panic("internal error: a ceiling does not marshal: " + err.Error())
	}
	value, err := ast.ValueFromReader(bytes.NewReader(raw))
	if err != nil {
		panic("internal error: a ceiling is not JSON: " + err.Error())
	}
	return ast.NewTerm(value)
}

var noDestinations = ast.ArrayTerm()

func destinations(list []inputDestination) *ast.Term {
	if len(list) == 0 {
		return noDestinations
	}
	terms := make([]*ast.Term, len(list))
	for i, d := range list {
		terms[i] = ast.ObjectTerm(member("name", text(d.Name)), member("matches", flags(d.Matches)))
	}
	return ast.ArrayTerm(terms...)
}

// known are the terms of texts that stand in every document, made once: OPA does
// not change terms.
var known = func() map[string]*ast.Term {
	terms := make(map[string]*ast.Term)
	for _, text := range []string{
		"action", "allow", "obligations", "required",
		"code_bytes",
		"cpu_percent",
		"data_class",
		"destinations",
		"execution",
		"file_size_bytes",
		"id",
		"kind",
		"labels",
		"language",
		"least",
		"memory_bytes",
		"name",
		"network",
		"node",
		"now",
		"only_role",
		"output_bytes",
		"principal",
		"processes",
		"registered",
		"require",
		"roles",
		"run_allowed",
		"sandbox",
		"suspended",
		"tenant",
		"tier",
		"timeout_ms",
		"via",
		"vouched",
		"", "agent", "service", "user", "http", "mesh", "python", "starlark", "auto", "none", unclassified,
	} {
		terms[text] = ast.StringTerm(text)
	}
	return terms
}()

func member(key string, value *ast.Term) [2]*ast.Term {
	return [2]*ast.Term{text(key), value}
}

func text(s string) *ast.Term {
	if term, ok := known[s]; ok {
		return term
	}
	return ast.StringTerm(s)
}

func boolean(b bool) *ast.Term { return ast.InternedTerm(b) }

func integer(n int64) *ast.Term {
	if n == 0 {
		return zero
	}
	return ast.NumberTerm(json.Number(strconv.FormatInt(n, 10)))
}

var zero = ast.NumberTerm("0")

func texts(m map[string]string) *ast.Term {
	o := ast.NewObject()
	for k, v := range m {
		o.Insert(ast.StringTerm(k), ast.StringTerm(v))
	}
	return ast.NewTerm(o)
}

func list(names []string) *ast.Term {
	terms := make([]*ast.Term, len(names))
	for i, name := range names {
		terms[i] = text(name)
	}
	return ast.ArrayTerm(terms...)
}

func flags(m map[string]bool) *ast.Term {
	o := ast.NewObject()
	for k, v := range m {
		o.Insert(ast.StringTerm(k), boolean(v))
	}
	return ast.NewTerm(o)
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func orEmpty(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}
