package audit

import (
	"fmt"
	"strings"
	"time"
)

// ParseMoment reads a time as RFC 3339 lets people write it: T and Z in either
// case, and a leap second, which is taken for the second after it.
func ParseMoment(text string) (time.Time, error) {
	const minutes, seconds = len("2006-01-02T15:"), len("2006-01-02T15:04:")
	text = strings.ToUpper(text)
	if len(text) < seconds+2 || text[minutes:seconds+2] != "59:60" {
		return time.Parse(time.RFC3339, text)
	}
	t, err := time.Parse(time.RFC3339, text[:seconds]+"59"+text[seconds+2:])
	return t.Add(time.Second), err
}

// Text is the filter in the form in which read entries and export proofs hold
// it: everything that selects entries, but not how they are paged.
func (f Filter) Text() ReadFilter {
	text := ReadFilter{
		Actor: f.Actor, OnBehalf: f.OnBehalf, Task: f.Task, Decision: f.Decision, Resource: f.Resource, Policy: f.Policy,
	}
	for _, k := range f.Kinds {
		text.Kinds = append(text.Kinds, string(k))
	}
	if !f.Since.IsZero() {
		text.Since = FormatTime(ceil(f.Since))
	}
	if !f.Until.IsZero() {
		text.Until = FormatTime(ceil(f.Until))
	}
	return text
}

// Filter is the filter that the text says, or [ErrInvalid].
func (f ReadFilter) Filter() (Filter, error) {
	out := Filter{Actor: f.Actor, OnBehalf: f.OnBehalf, Task: f.Task, Decision: f.Decision, Resource: f.Resource, Policy: f.Policy}
	for _, k := range f.Kinds {
		out.Kinds = append(out.Kinds, Kind(k))
	}
	for into, text := range map[*time.Time]string{&out.Since: f.Since, &out.Until: f.Until} {
		if text == "" {
			continue
		}
		at, err := ParseTime(text)
		if err != nil {
			return Filter{}, err
		}
		*into = at
	}
	if f.At != "" {
		return Filter{}, fmt.Errorf("%w: a filter has no index", ErrInvalid)
	}
	return out, out.check()
}

func (f ReadFilter) empty() bool {
	return f.Actor == "" && f.At == "" && f.Decision == "" && len(f.Kinds) == 0 && f.OnBehalf == "" && f.Policy == "" &&
		f.Resource == "" && f.Since == "" && f.Task == "" && f.Until == ""
}
