package audit

import "testing"

// TaskOf is the task id that receipts expect of a request.
func TaskOf(issuer, jti string) string { return taskOf(issuer, jti) }

// FailAt makes the store's writes fail at a stage, "before commit" or "after
// commit", until the test undoes it with a nil err.
func (s *Store) FailAt(tb testing.TB, stage string, err error) {
	tb.Helper()
	s.applying.Lock()
	defer s.applying.Unlock()
	s.fault = func(at string) error {
		if at == stage {
			return err
		}
		return nil
	}
}
