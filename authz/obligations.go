package authz

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/agenticraft/node/authz/destination"
)

// valueAt is a member of an object, nil if it is not there.
func valueAt(object ast.Object, key string) ast.Value {
	if term := object.Get(text(key)); term != nil {
		return term.Value
	}
	return nil
}

// readObligations reads the policy's answer strictly: each ceiling is a whole
// number above zero.
func readObligations(v ast.Value, asked *inputExecution) (Obligations, error) {
	object, ok := v.(ast.Object)
	if !ok || asked == nil {
		return Obligations{}, fmt.Errorf("%w: it allows a run without obligations", ErrPolicy)
	}
	r := obligationReader{object: object}
	o := Obligations{
		MemoryBytes:   r.number("memory_bytes", math.MaxInt64),
		TimeoutMS:     r.number("timeout_ms", math.MaxInt64/int64(time.Millisecond)),
		CPUPercent:    int(r.number("cpu_percent", math.MaxInt32)),
		OutputBytes:   r.number("output_bytes", math.MaxInt64),
		FileSizeBytes: r.number("file_size_bytes", math.MaxInt64),
		Processes:     int(r.number("processes", math.MaxInt32)),
		CodeBytes:     int(r.number("code_bytes", math.MaxInt32)),
		Sandbox:       r.text("sandbox"),
		Required:      slices.Clone(asked.Require),
	}
	for _, d := range asked.Destinations {
		o.Destinations = append(o.Destinations, d.Name)
	}
	r.tier(&o)
	r.network(&o)
	r.required(&o)
	if len(r.faults) > 0 {
		return Obligations{}, errors.Join(r.faults...)
	}
	return o, nil
}

type obligationReader struct {
	object ast.Object
	faults []error
}

func (r *obligationReader) fault(format string, args ...any) {
	r.faults = append(r.faults, fmt.Errorf("%w: obligation "+format, append([]any{ErrPolicy}, args...)...))
}

func (r *obligationReader) number(key string, most int64) int64 {
	n, ok := valueAt(r.object, key).(ast.Number)
	whole, isWhole := n.Int64()
	if !ok || !isWhole || whole <= 0 || whole > most {
		r.fault("%s is not a whole number above zero", key)
	}
	return whole
}

func (r *obligationReader) text(key string) string {
	s, ok := valueAt(r.object, key).(ast.String)
	if !ok {
		r.fault("%s is not a text", key)
	}
	return string(s)
}

func (r *obligationReader) tier(o *Obligations) {
	if valueAt(r.object, "tier") == nil {
		return
	}
	if o.Tier = r.text("tier"); o.Tier != "" && !IsTier(o.Tier) {
		r.fault("tier is none of %s", strings.Join(tiers, ", "))
	}
}

// network cuts what was asked for down to what the patterns cover.
func (r *obligationReader) network(o *Obligations) {
	v := valueAt(r.object, "network")
	if v == nil {
		return
	}
	set, ok := v.(ast.Object)
	if !ok {
		r.fault("network is not an object of patterns")
		return
	}
	var patterns []string
	set.Foreach(func(key, held *ast.Term) {
		if p, ok := key.Value.(ast.String); ok && held.Value.Compare(ast.Boolean(true)) == 0 {
			patterns = append(patterns, string(p))
		}
	})
	o.Destinations = destination.Covered(o.Destinations, patterns)
}

func (r *obligationReader) required(o *Obligations) {
	list, ok := valueAt(r.object, "required").(*ast.Array)
	if !ok {
		r.fault("required is not a list")
		return
	}
	list.Foreach(func(item *ast.Term) {
		name, ok := item.Value.(ast.String)
		if !ok {
			r.fault("required holds more than texts")
		}
		o.Required = append(o.Required, string(name))
	})
	slices.Sort(o.Required)
	o.Required = slices.Compact(o.Required)
}
