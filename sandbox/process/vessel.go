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

// Vessel is an interpreter that was started in isolation as [Command] says, and
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
// [sandbox.Backend] says of Run. Tier and Runtime of the result are the caller's to
// fill in.
func Execute(ctx context.Context, spec sandbox.Spec, v Vessel, log *slog.Logger, ready func(context.Context) error) (sandbox.Result, error) {
	speaks, err := dialectOf(spec.Language)
	if err != nil {
		v.Release()
		return sandbox.Result{}, err
	}
	r := &run{dialect: speaks, spec: spec, jail: v, log: log}
	return r.do(ctx, ready)
}

// Complete checks the language and the sizes of what a run brings, fills in its
// limits, and refuses those that do not let the interpreter start.
func Complete(spec sandbox.Spec) (sandbox.Spec, error) {
	if len(spec.Code) > maxCode || len(spec.Stdin) > maxStdin {
		return spec, fmt.Errorf("%w: code over %d or stdin over %d bytes", sandbox.ErrSpec, maxCode, maxStdin)
	}
	speaks, err := dialectOf(spec.Language)
	if err != nil {
		return spec, err
	}
	spec.Limits = jail.Normalize(spec.Limits)
	return spec, speaks.check(spec.Limits)
}
