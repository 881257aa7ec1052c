package audit

import (
	"maps"
	"slices"
	"strconv"
	"time"
)

// strictWriter writes the canonical JSON of entries without reflection, as
// strict reads it: exactly what [marshal] would write, or nothing. FuzzStrict and
// FuzzStrictWriter hold the two together.
type strictWriter struct {
	out []byte
	bad bool // something needs an escape
}

// member begins a member of the object that was opened last.
func (w *strictWriter) member(name string) {
	if w.out[len(w.out)-1] != '{' {
		w.out = append(w.out, ',')
	}
	w.out = append(w.out, '"')
	w.out = append(w.out, name...)
	w.out = append(w.out, '"', ':')
}

func (w *strictWriter) string(s string) {
	w.out = append(w.out, '"')
	w.out = append(w.out, s...)
	w.out = append(w.out, '"')
	for i := range len(s) {
		w.bad = w.bad || s[i] < ' ' || s[i] > '~' || s[i] == '"' || s[i] == '\\'
	}
}

func (w *strictWriter) must(name, value string) {
	w.member(name)
	w.string(value)
}

// some writes a string that is left out when it is empty.
func (w *strictWriter) some(name, value string) {
	if value != "" {
		w.must(name, value)
	}
}

func (w *strictWriter) number(name string, value int64) {
	w.member(name)
	w.out = strconv.AppendInt(w.out, value, 10)
}

// nonzero writes a number that is left out when it is zero.
func (w *strictWriter) nonzero(name string, value int64) {
	if value != 0 {
		w.number(name, value)
	}
}

func (w *strictWriter) begin() { w.out = append(w.out, '{') }
func (w *strictWriter) end()   { w.out = append(w.out, '}') }

func (w *strictWriter) decision(d *Decision) {
	w.begin()
	w.member("allow")
	w.out = strconv.AppendBool(w.out, d.Allow)
	w.some("input", d.Input)
	w.nonzero("micros", d.Micros)
	w.some("node", string(d.Node))
	if d.Obligations != nil {
		w.member("obligations")
		w.obligations(d.Obligations)
	}
	w.some("policy", d.Policy)
	if len(d.Reasons) > 0 {
		w.member("reasons")
		w.out = append(w.out, '[')
		for i, reason := range d.Reasons {
			if i > 0 {
				w.out = append(w.out, ',')
			}
			w.string(reason)
		}
		w.out = append(w.out, ']')
	}
	w.end()
}

func (w *strictWriter) obligations(o *Obligations) {
	w.begin()
	if len(o.Limits) > 0 {
		w.member("limits")
		w.begin()
		for _, name := range slices.Sorted(maps.Keys(o.Limits)) {
			if w.out[len(w.out)-1] != '{' {
				w.out = append(w.out, ',')
			}
			w.string(name)
			w.out = strconv.AppendInt(append(w.out, ':'), o.Limits[name], 10)
		}
		w.end()
	}
	w.some("sandbox", o.Sandbox)
	w.some("tier", o.Tier)
	w.end()
}

// entryBytes is room for most entries around their bodies.
const entryBytes = 768

// write makes the leaf of an entry whose body is canonical. Not ok: a text needs
// an escape, and encoding/json has to write it.
func (e Entry) write() (leaf []byte, ok bool) {
	w := &strictWriter{out: make([]byte, 0, entryBytes+len(e.Body))}
	w.begin()
	w.some("actor", e.Actor)
	w.nonzero("attempt", int64(e.Attempt))
	w.some("author", string(e.Author))
	if len(e.Body) > 0 {
		w.member("body")
		w.out = append(w.out, e.Body...)
	}
	if e.Decision != nil {
		w.member("decision")
		w.decision(e.Decision)
	}
	w.must("id", e.ID)
	w.must("kind", string(e.Kind))
	w.some("on_behalf", e.OnBehalf)
	if e.Once != nil {
		w.member("once")
		w.begin()
		w.must("digest", e.Once.Digest)
		w.must("key", e.Once.Key)
		w.end()
	}
	if e.Ref != nil {
		w.member("ref")
		w.out = strconv.AppendUint(w.out, *e.Ref, 10)
	}
	w.some("task", e.Task)
	w.some("tenant", e.Tenant)
	w.must("time", e.Time)
	w.number("v", int64(e.V))
	w.end()
	return w.out, !w.bad
}

// writeTime is time.Format with timeLayout, of years with four digits.
func writeTime(t time.Time) (text string, ok bool) {
	t = t.UTC()
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	out := []byte(timeLayout)
	digits := func(from, until, n int) {
		for i := until - 1; i >= from; i-- {
			out[i] = byte('0' + n%10)
			n /= 10
		}
	}
	digits(0, 4, year)
	digits(5, 7, int(month))
	digits(8, 10, day)
	digits(11, 13, hour)
	digits(14, 16, minute)
	digits(17, 19, second)
	digits(20, 23, t.Nanosecond()/int(time.Millisecond))
	return string(out), year >= 0 && year <= 9999
}
