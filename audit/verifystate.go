package audit

import (
	"bytes"
	"errors"
	"fmt"
	"iter"

	"github.com/agenticraft/node/identity"
)

// replay lets the admission rules decide about the entry at index at again.
func (v *dirCheck) replay(at uint64, e Entry) error {
	if v.rules == nil {
		return nil
	}
	var author identity.ID // entry 0 has none
	if at == 0 {
		v.admit = v.rules.Admit(v.report.Origin)
	} else {
		author = e.Author
	}
	if err := v.admit.Admit(v.rules.State, at, author, e); err != nil {
		return bad(at, fmt.Sprintf("the rules do not let it in: %v", err))
	}
	return nil
}

// replayed compares the state that the rules kept with what a replay gives.
func (v *dirCheck) replayed() error {
	if v.rules == nil {
		return nil
	}
	last := v.report.Size - 1
	wrong := func(key string) error {
		return bad(last, fmt.Sprintf("the tables of the rules are not what the entries give: key %q", clip(key)))
	}
	next, stop := iter.Pull2(v.file.all(v.buckets[string(bucketState)]))
	defer stop()
	differs := errors.New("differs")
	var at string
	err := v.rules.State.Each("", func(key string, value []byte) error {
		e, err, ok := next()
		if err != nil {
			return bad(last, err.Error())
		}
		if at = key; !ok || string(e.key) != key || !bytes.Equal(e.value, value) {
			if ok {
				at = min(key, string(e.key))
			}
			return differs
		}
		return nil
	})
	if errors.Is(err, differs) {
		return wrong(at)
	}
	if err != nil {
		return err
	}
	if e, err, ok := next(); err != nil || ok {
		return wrong(string(e.key))
	}
	return nil
}
