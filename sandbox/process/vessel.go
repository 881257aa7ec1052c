package process

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/jail"
)

// Channel is a private stream to an interpreter. All that comes from it is
// hostile.
type Channel interface {
	io.ReadWriter
	SetDeadline(time.Time) error
}

// Vessel is an interpreter that was started in isolation with [Bootstrap], and
// everything that it may start. Its methods are those of [jail.Jail].
type Vessel interface {
	Control() Channel
	Stdin() *os.File
	Stdout() *os.File // ends when everything inside is dead
	Stderr() *os.File
	Done() <-chan struct{} // closed when everything inside is dead
	Kill()
	Wait(ctx context.Context) (jail.Exit, error)
	Release()
	Enforced() map[string]string
	// Collect reads what was left in the working folder, after Done.
	Collect(jail.CollectLimits) ([]sandbox.File, error)
}

type jailed struct{ *jail.Jail }

func (j jailed) Control() Channel { return j.Jail.Control() }

// Execute runs one program in v, which it ends and releases, as
// [sandbox.Backend] says of Run. The program is Python's. Tier and Runtime of the result are the
// caller's to fill in.
func Execute(ctx context.Context, spec sandbox.Spec, v Vessel, log *slog.Logger, ready func(context.Context) error) (sandbox.Result, error) {
	r := &run{dialect: dialects[0], spec: spec, jail: v, log: log}
	return r.do(ctx, ready)
}

// Complete checks the sizes of what a run brings and fills in its limits.
func Complete(spec sandbox.Spec) (sandbox.Spec, error) {
	if len(spec.Code) > maxCode || len(spec.Stdin) > maxStdin {
		return spec, fmt.Errorf("%w: code over %d or stdin over %d bytes", sandbox.ErrSpec, maxCode, maxStdin)
	}
	spec.Limits = jail.Normalize(spec.Limits)
	return spec, nil
}
