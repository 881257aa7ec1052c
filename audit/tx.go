package audit

import (
	"bytes"
	"errors"
	"slices"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

var errReadOnly = errors.New("state is read-only here")

// stateTx is the state bucket as a [Tx]. It remembers what it overwrote, so
// that a refusal leaves no trace.
type stateTx struct {
	bucket   *bbolt.Bucket
	writable bool
	before   []keptValue
	memo     map[string]any // see [Memo]; nil: nothing is remembered
}

// Memo is a [Tx] that remembers, until the state is written next, what was
// worked out of it.
type Memo interface {
	Tx
	// Remembered is what was remembered under the name, nil if nothing is.
	Remembered(name string) any
	// Remember keeps a value that follows from the state alone. Nobody may
	// change it afterwards.
	Remember(name string, value any)
}

func (t *stateTx) Remembered(name string) any { return t.memo[name] }

func (t *stateTx) Remember(name string, value any) {
	if t.memo != nil {
		t.memo[name] = value
	}
}

type keptValue struct {
	key, value []byte // value nil: there was none
}

func (t *stateTx) Get(key string) []byte { return bytes.Clone(t.bucket.Get([]byte(key))) }

func (t *stateTx) Put(key string, value []byte) error {
	if err := t.keep(key); err != nil {
		return err
	}
	return t.bucket.Put([]byte(key), bytes.Clone(value))
}

func (t *stateTx) Delete(key string) error {
	if err := t.keep(key); err != nil {
		return err
	}
	return t.bucket.Delete([]byte(key))
}

func (t *stateTx) Each(prefix string, fn func(key string, value []byte) error) error {
	c := t.bucket.Cursor()
	for k, v := c.Seek([]byte(prefix)); k != nil && bytes.HasPrefix(k, []byte(prefix)); k, v = c.Next() {
		if err := fn(string(k), bytes.Clone(v)); err != nil {
			return err
		}
	}
	return nil
}

func (t *stateTx) keep(key string) error {
	if !t.writable {
		return errReadOnly
	}
	clear(t.memo)
	t.before = append(t.before, keptValue{[]byte(key), bytes.Clone(t.bucket.Get([]byte(key)))})
	return nil
}

// undo puts back what was there, newest change first.
func (t *stateTx) undo() error {
	clear(t.memo)
	for _, kept := range slices.Backward(t.before) {
		var err error
		if kept.value == nil {
			err = t.bucket.Delete(kept.key)
		} else {
			err = t.bucket.Put(kept.key, kept.value)
		}
		if err != nil {
			return err
		}
	}
	t.before = nil
	return nil
}

// View runs fn on the admission rules' state as of one size of the log. fn
// must not write.
func (s *Store) View(fn func(tx Tx) error) error {
	return s.view(func(tx *bbolt.Tx) error {
		return fn(&stateTx{bucket: tx.Bucket(bucketState)})
	})
}

// view runs fn on all that is applied.
func (s *Store) view(fn func(tx *bbolt.Tx) error) error {
	s.mu.Lock()
	settled, full := s.applied == s.durable, s.full
	s.mu.Unlock()
	if settled {
		return s.viewDurable(fn)
	}
	if full != nil {
		return errStalled // what is durable is older than what was answered
	}
	done, err := s.viewOpen(fn)
	if !done {
		return s.viewDurable(fn)
	}
	return err
}

// viewOpen runs fn on the open transaction, if there is one. The lock is held
// meanwhile: bbolt's write transactions are not for two.
func (s *Store) viewOpen(fn func(tx *bbolt.Tx) error) (done bool, err error) {
	s.applying.Lock()
	defer s.applying.Unlock()
	if s.open == nil {
		return false, nil
	}
	return true, s.distrust(guard(func() error { return fn(s.open.tx) }))
}

// viewDurable runs fn on a consistent state of the file.
func (s *Store) viewDurable(fn func(tx *bbolt.Tx) error) error {
	err := guard(func() error { return s.db.View(fn) })
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return ErrClosed
	}
	return s.distrust(err)
}

// distrust stops the store if the disk gave back what nobody wrote.
func (s *Store) distrust(err error) error {
	if !errors.Is(err, ErrDamaged) {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken == nil {
		s.broken = err
		s.log.Error("the audit log is damaged and goes no further; stop the node and run agenticraft audit repair --data DIR", "err", err)
	}
	return err
}
