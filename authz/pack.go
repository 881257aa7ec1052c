package authz

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
)

const (
	// maxPacked is the most bytes of a packed policy: it travels in one entry of
	// the audit log.
	maxPacked   = 44 << 10
	maxUnpacked = 8 << 20
)

// Pack writes a policy's files as gzipped JSON, for the log.
func Pack(modules map[string]string) ([]byte, error) {
	text, err := json.Marshal(modules)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPolicy, err)
	}
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(text); err != nil {
		return nil, fmt.Errorf("pack policy: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("pack policy: %w", err)
	}
	if out.Len() > maxPacked {
		return nil, fmt.Errorf("%w: packed it has %d bytes, at most %d fit into an entry of the log; keep lists of people in the registry, not in data", ErrPolicy, out.Len(), maxPacked)
	}
	return out.Bytes(), nil
}

// Unpack reads what [Pack] wrote.
func Unpack(packed []byte) (map[string]string, error) {
	if len(packed) > maxPacked {
		return nil, fmt.Errorf("%w: packed it has %d bytes, at most %d", ErrPolicy, len(packed), maxPacked)
	}
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("%w: unpack: %w", ErrPolicy, err)
	}
	text, err := io.ReadAll(io.LimitReader(r, maxUnpacked+1))
	if err != nil {
		return nil, fmt.Errorf("%w: unpack: %w", ErrPolicy, err)
	}
	if len(text) > maxUnpacked {
		return nil, fmt.Errorf("%w: unpacked it has more than %d bytes", ErrPolicy, maxUnpacked)
	}
	var modules map[string]string
	if err := json.Unmarshal(text, &modules); err != nil {
		return nil, fmt.Errorf("%w: unpack: %w", ErrPolicy, err)
	}
	return modules, nil
}

// Digest is the digest that a policy of these files has; see [Policy.Digest].
func Digest(modules map[string]string) string { return digest(modules) }
