package taskstore

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"go.etcd.io/bbolt"
)

// Caps of what one task may have to push.
const (
	MaxPushes  = 16  // configurations of one task
	MaxNotices = 256 // that wait for one receiver; the oldest give way
)

// ErrTooMany: the task has [MaxPushes] configurations already.
var ErrTooMany = errors.New("too many push configurations")

// Queue names what waits for one receiver: a task's push configuration.
type Queue struct {
	Task sdk.TaskID
	ID   string // of the configuration
}

// Notice is one notification that waits to be delivered.
type Notice struct {
	Number uint64 // rises within a queue
	Since  time.Time
	Body   []byte
}

// SavePush adds or replaces a configuration of a task that the store holds.
// Its secrets are kept in the file as they are.
func (s *Store) SavePush(cfg *sdk.PushConfig) error {
	raw, err := json.Marshal(cfg)
	if err != nil {
		return fmt.Errorf("save push configuration: %w", err)
	}
	key := Queue{cfg.TaskID, cfg.ID}.key()
	err = s.write(func(tx *bbolt.Tx) error {
		if tx.Bucket(bucketTasks).Get([]byte(cfg.TaskID)) == nil {
			return ErrNotFound
		}
		b := tx.Bucket(bucketPushes)
		if b.Get(key) == nil && count(b, prefixOf(cfg.TaskID)) >= MaxPushes {
			return ErrTooMany
		}
		return b.Put(key, raw)
	})
	if err != nil {
		return fmt.Errorf("save push configuration: %w", err)
	}
	return nil
}

// Push reads a configuration; an unknown one is [ErrNotFound].
func (s *Store) Push(q Queue) (*sdk.PushConfig, error) {
	var cfg *sdk.PushConfig
	err := s.db.View(func(tx *bbolt.Tx) error {
		raw := tx.Bucket(bucketPushes).Get(q.key())
		if raw == nil {
			return ErrNotFound
		}
		return json.Unmarshal(raw, &cfg)
	})
	if err != nil {
		return nil, fmt.Errorf("push configuration: %w", err)
	}
	return cfg, nil
}

// Pushes lists the configurations of a task by id.
func (s *Store) Pushes(task sdk.TaskID) ([]*sdk.PushConfig, error) {
	out := []*sdk.PushConfig{}
	err := s.db.View(func(tx *bbolt.Tx) error {
		return each(tx.Bucket(bucketPushes), prefixOf(task), func(_, raw []byte) error {
			var cfg sdk.PushConfig
			if err := json.Unmarshal(raw, &cfg); err != nil {
				return err
			}
			out = append(out, &cfg)
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("push configurations: %w", err)
	}
	return out, nil
}

// DeletePush removes a configuration and what waits for it. One that is not
// there is no error.
func (s *Store) DeletePush(q Queue) error {
	err := s.write(func(tx *bbolt.Tx) error {
		return errors.Join(tx.Bucket(bucketPushes).Delete(q.key()), clear(tx.Bucket(bucketNotices), q.prefix()))
	})
	if err != nil {
		return fmt.Errorf("delete push configuration: %w", err)
	}
	return nil
}

// Queues lists the queues in which something waits.
func (s *Store) Queues() ([]Queue, error) {
	var out []Queue
	err := s.db.View(func(tx *bbolt.Tx) error {
		return each(tx.Bucket(bucketNotices), nil, func(k, _ []byte) error {
			parts := bytes.SplitN(k, []byte{0}, 3)
			if len(parts) != 3 {
				return fmt.Errorf("bad key %x", k)
			}
			if q := (Queue{sdk.TaskID(parts[0]), string(parts[1])}); len(out) == 0 || out[len(out)-1] != q {
				out = append(out, q)
			}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("push queues: %w", err)
	}
	return out, nil
}

// NextNotice is the first notice of a queue; none is [ErrNotFound].
func (s *Store) NextNotice(q Queue) (Notice, error) {
	var n Notice
	err := s.db.View(func(tx *bbolt.Tx) error {
		prefix := q.prefix()
		k, v := tx.Bucket(bucketNotices).Cursor().Seek(prefix)
		switch {
		case !bytes.HasPrefix(k, prefix):
			return ErrNotFound
		case len(k) != len(prefix)+numberBytes || len(v) < numberBytes:
			return fmt.Errorf("bad notice %x", k)
		}
		since := int64(binary.BigEndian.Uint64(v))
		n = Notice{binary.BigEndian.Uint64(k[len(prefix):]), time.Unix(0, since).UTC(), slices.Clone(v[numberBytes:])}
		return nil
	})
	if err != nil {
		return Notice{}, fmt.Errorf("next notice: %w", err)
	}
	return n, nil
}

// Delivered removes a notice: it arrived, or was given up.
func (s *Store) Delivered(q Queue, number uint64) error {
	err := s.write(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketNotices).Delete(binary.BigEndian.AppendUint64(q.prefix(), number))
	})
	if err != nil {
		return fmt.Errorf("remove notice: %w", err)
	}
	return nil
}

// putNotices queues the notices for each configuration of the task.
func putNotices(tx *bbolt.Tx, task sdk.TaskID, now time.Time, notices [][]byte) error {
	if len(notices) == 0 {
		return nil
	}
	bucket := tx.Bucket(bucketNotices)
	return each(tx.Bucket(bucketPushes), prefixOf(task), func(key, _ []byte) error {
		for _, body := range notices {
			number, err := bucket.NextSequence()
			if err != nil {
				return err
			}
			prefix := append(slices.Clone(key), 0)
			value := append(binary.BigEndian.AppendUint64(nil, uint64(now.UnixNano())), body...)
			if err := bucket.Put(binary.BigEndian.AppendUint64(slices.Clone(prefix), number), value); err != nil {
				return err
			}
			for count(bucket, prefix) > MaxNotices {
				first, _ := bucket.Cursor().Seek(prefix)
				if err := bucket.Delete(slices.Clone(first)); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func (q Queue) key() []byte    { return append(prefixOf(q.Task), q.ID...) }
func (q Queue) prefix() []byte { return append(q.key(), 0) }

func each(b *bbolt.Bucket, prefix []byte, do func(k, v []byte) error) error {
	c := b.Cursor()
	for k, v := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
		if err := do(k, v); err != nil {
			return err
		}
	}
	return nil
}

func count(b *bbolt.Bucket, prefix []byte) int {
	n := 0
	c := b.Cursor()
	for k, _ := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		n++
	}
	return n
}

func clear(b *bbolt.Bucket, prefix []byte) error {
	var keys [][]byte // a cursor does not survive deleting
	err := each(b, prefix, func(k, _ []byte) error {
		keys = append(keys, slices.Clone(k))
		return nil
	})
	for _, k := range keys {
		err = errors.Join(err, b.Delete(k))
	}
	return err
}
