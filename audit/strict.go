package audit

import (
	"strconv"
	"strings"

	"github.com/agenticraft/node/identity"
)

// strict reads the canonical JSON of the shapes that are written most, without
// reflection and in one pass. It is a short cut, never a second opinion: what it
// takes is exactly what [marshal] would write of the value it gives, and what it
// does not take, encoding/json decides. FuzzStrict holds the two together.
//
// After the first fault everything reads as zero, and done reports false.
type strict struct {
	rest  string // strings that are read share its memory
	first bool   // the next member is the first of its object
	bad   bool
}

func (s *strict) want(c byte) {
	if s.bad || len(s.rest) == 0 || s.rest[0] != c {
		s.bad = true
		return
	}
	s.rest = s.rest[1:]
}

func (s *strict) begin() {
	s.want('{')
	s.first = true
}

func (s *strict) end() {
	s.want('}')
	s.first = false
}

func (s *strict) done() bool { return !s.bad && len(s.rest) == 0 }

// member reports whether the next member has the name, and moves to its value.
func (s *strict) member(name string) bool {
	r := s.rest
	if !s.first {
		if len(r) == 0 || r[0] != ',' {
			return false
		}
		r = r[1:]
	}
	n := len(name)
	if s.bad || len(r) < n+3 || r[0] != '"' || r[1:n+1] != name || r[n+1] != '"' || r[n+2] != ':' {
		return false
	}
	s.rest, s.first = r[n+3:], false
	return true
}

// must moves to the value of a member that is always there.
func (s *strict) must(name string) {
	if !s.member(name) {
		s.bad = true
	}
}

// string reads a string of printable ASCII that needs no escape.
func (s *strict) string() string {
	s.want('"')
	for i := range len(s.rest) {
		c := s.rest[i]
		if c == '"' {
			out := s.rest[:i]
			s.rest = s.rest[i+1:]
			if s.bad {
				return ""
			}
			return out
		}
		if c < ' ' || c > '~' || c == '\\' {
			break
		}
	}
	s.bad = true
	return ""
}

// some reads a string that would not be written if it were empty.
func (s *strict) some() string {
	out := s.string()
	s.bad = s.bad || out == ""
	return out
}

func (s *strict) id() identity.ID { return identity.ID(s.string()) }

// number reads an integer as canonical JSON writes it.
func (s *strict) number() int64 {
	i := 0
	if i < len(s.rest) && s.rest[i] == '-' {
		i++
	}
	digits := i
	for i < len(s.rest) && s.rest[i] >= '0' && s.rest[i] <= '9' {
		i++
	}
	const most = 16 // digits of 2^53
	n := i - digits
	if s.bad || n == 0 || n > most || s.rest[digits] == '0' && i > 1 {
		s.bad = true
		return 0
	}
	out, err := strconv.ParseInt(s.rest[:i], 10, 64)
	if err != nil || !exact(out) {
		s.bad = true
		return 0
	}
	s.rest = s.rest[i:]
	return out
}

// nonzero reads a number that would not be written if it were zero.
func (s *strict) nonzero() int64 {
	n := s.number()
	s.bad = s.bad || n == 0
	return n
}

func (s *strict) bool() bool {
	if rest, ok := strings.CutPrefix(s.rest, "true"); ok {
		s.rest = rest
		return true
	}
	rest, ok := strings.CutPrefix(s.rest, "false")
	s.rest, s.bad = rest, s.bad || !ok
	return false
}

// object moves past an object, of which it sees no more than where it ends and
// how deeply it nests, and returns a copy of it.
func (s *strict) object() []byte {
	depth, lists, quoted := 0, 0, false
	for i := 0; i < len(s.rest) && !s.bad; i++ {
		switch c := s.rest[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{':
			depth++
		case c == '}':
			depth--
		case c == '[':
			lists++
		case c == ']':
			lists--
		}
		s.bad = depth+lists >= maxDepth // it is nested itself
		if depth == 0 {
			out := []byte(s.rest[:i+1])
			s.rest = s.rest[i+1:]
			s.bad = s.bad || out[0] != '{'
			return out
		}
	}
	s.bad = true
	return nil
}

// strings reads a list that would not be written if it were empty.
func (s *strict) strings() []string {
	var out []string
	s.want('[')
	for !s.bad {
		out = append(out, s.string())
		if len(s.rest) > 0 && s.rest[0] == ']' {
			break
		}
		s.want(',')
	}
	s.want(']')
	return out
}

// table reads an object of values by name that would not be written if it were
// empty; its names ascend.
func table[T any](s *strict, value func() T) map[string]T {
	out := map[string]T{}
	s.begin()
	for last := ""; !s.bad; {
		if !s.first {
			if len(s.rest) > 0 && s.rest[0] == '}' {
				break
			}
			s.want(',')
		}
		s.first = false
		name := s.some()
		s.want(':')
		s.bad = s.bad || name <= last
		out[name], last = value(), name
	}
	s.end()
	return out
}

// strictEntry reads a leaf. check holds what it says to the rules.
func strictEntry(leaf []byte) (e Entry, ok bool) {
	s := &strict{rest: string(leaf)}
	s.begin()
	if s.member("actor") {
		e.Actor = s.some()
	}
	if s.member("attempt") {
		e.Attempt = int(s.nonzero())
	}
	if s.member("author") {
		e.Author = identity.ID(s.some())
	}
	if s.member("body") {
		e.Body = s.object()
	}
	if s.member("decision") {
		e.Decision = s.decision()
	}
	s.must("id")
	e.ID = s.string()
	s.must("kind")
	e.Kind = Kind(s.string())
	if s.member("on_behalf") {
		e.OnBehalf = s.some()
	}
	if s.member("once") {
		e.Once = new(Once)
		s.begin()
		s.must("digest")
		e.Once.Digest = s.string()
		s.must("key")
		e.Once.Key = s.string()
		s.end()
	}
	if s.member("ref") {
		n := s.number()
		s.bad = s.bad || n < 0
		ref := uint64(n)
		e.Ref = &ref
	}
	if s.member("task") {
		e.Task = s.some()
	}
	if s.member("tenant") {
		e.Tenant = s.some()
	}
	s.must("time")
	e.Time = s.string()
	s.must("v")
	e.V = int(s.number())
	s.end()
	return e, s.done()
}

func (s *strict) decision() *Decision {
	d := new(Decision)
	s.begin()
	s.must("allow")
	d.Allow = s.bool()
	if s.member("input") {
		d.Input = s.some()
	}
	if s.member("micros") {
		d.Micros = s.nonzero()
	}
	if s.member("node") {
		d.Node = identity.ID(s.some())
	}
	if s.member("obligations") {
		d.Obligations = s.obligations()
	}
	if s.member("policy") {
		d.Policy = s.some()
	}
	if s.member("reasons") {
		d.Reasons = s.strings()
	}
	s.end()
	return d
}

func (s *strict) obligations() *Obligations {
	o := new(Obligations)
	s.begin()
	if s.member("limits") {
		o.Limits = table(s, s.number)
	}
	if s.member("sandbox") {
		o.Sandbox = s.some()
	}
	if s.member("tier") {
		o.Tier = s.some()
	}
	s.end()
	return o
}

func (s *strict) asked() *Asked {
	a := new(Asked)
	s.begin()
	if s.member("code_bytes") {
		a.CodeBytes = int(s.nonzero())
	}
	if s.member("data_class") {
		a.DataClass = s.some()
	}
	if s.member("language") {
		a.Language = s.some()
	}
	if s.member("limits") {
		a.Limits = table(s, s.number)
	}
	if s.member("network") {
		a.Network = s.some()
	}
	if s.member("sandbox") {
		a.Sandbox = s.some()
	}
	if s.member("tier") {
		a.Tier = s.some()
	}
	if s.member("via") {
		a.Via = s.some()
	}
	if s.member("withheld") {
		a.Withheld = s.strings()
	}
	s.end()
	return a
}

func strictIntent(text []byte) (b IntentBody, ok bool) {
	s := &strict{rest: string(text)}
	s.begin()
	if s.member("asked") {
		b.Asked = s.asked()
	}
	s.must("door")
	b.Door = s.id()
	if s.member("door_decision") {
		b.DoorDecision = s.decision()
	}
	s.must("executor")
	b.Executor = s.id()
	s.must("language")
	b.Language = s.string()
	s.must("lease_ms")
	b.LeaseMS = s.number()
	if s.member("limits") {
		b.Limits = table(s, s.number)
	}
	s.must("network") // a mandate is rare: encoding/json reads it
	b.Network = s.string()
	s.must("request")
	b.Request = s.string()
	if s.member("required") {
		b.Required = s.strings()
	}
	if s.member("runtime") {
		b.Runtime = s.some()
	}
	s.must("sandbox")
	b.Sandbox = s.string()
	s.end()
	return b, s.done()
}

func strictOutcome(text []byte) (b OutcomeBody, ok bool) {
	s := &strict{rest: string(text)}
	s.begin()
	s.must("cpu_ms")
	b.CPUMS = s.number()
	if s.member("enforced") {
		b.Enforced = table(s, s.string)
	}
	if s.member("error_code") {
		b.ErrorCode = s.some()
	}
	s.must("exit_code")
	b.ExitCode = int(s.number())
	if s.member("output") {
		b.Output = table(s, s.string)
	}
	s.must("peak_memory")
	b.PeakMemory = s.number()
	s.must("status")
	b.Status = s.string()
	s.must("wall_ms")
	b.WallMS = s.number()
	s.end()
	return b, s.done()
}

func strictDenial(text []byte) (b DenialBody, ok bool) {
	s := &strict{rest: string(text)}
	s.begin()
	if s.member("action") {
		b.Action = s.some()
	}
	if s.member("asked") {
		b.Asked = s.asked()
	}
	s.must("code")
	b.Code = s.string()
	if s.member("count") {
		b.Count = int(s.nonzero())
	}
	if s.member("door") {
		b.Door = identity.ID(s.some())
	}
	s.end()
	return b, s.done()
}

// strictBody reports whether a body is known to be canonical.
func strictBody(kind Kind, text []byte) (ok bool) {
	switch kind {
	case KindIntent:
		_, ok = strictIntent(text)
	case KindOutcome, KindLate:
		_, ok = strictOutcome(text)
	case KindDenial:
		_, ok = strictDenial(text)
	}
	return ok
}
