package agent

import (
	"context"
	"time"
)

// SweepEvidence does what the background work does of itself.
func (a *Agent) SweepEvidence(ctx context.Context, now time.Time) error {
	return a.sweepEvidence(ctx, now)
}
