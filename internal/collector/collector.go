// Package collector paces Go's garbage collector by what the process does.
package collector

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	every    = time.Second
	calm     = 100       // percent that the heap may grow by between collections: Go's own
	busy     = 400       // most, while there are many
	most     = 128 << 20 // bytes that the heap may grow by because of busy
	many     = 2         // collections in one period
	patience = 5         // periods without a collection after which a process is calm again
)

// Run has the heap grow further between collections while there are many of
// them, which then cost less than half as much processor time, and gives the
// memory back to the system afterwards. It does nothing where the environment
// sets GOGC, and ends with ctx. Only one may run in a process.
func Run(ctx context.Context) error {
	if os.Getenv("GOGC") != "" {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	p := pace{percent: calm}
	defer debug.SetGCPercent(debug.SetGCPercent(calm))
	samples := []metrics.Sample{{Name: "/gc/cycles/automatic:gc-cycles"}, {Name: "/gc/heap/live:bytes"}}
	metrics.Read(samples)
	for seen := samples[0].Value.Uint64(); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		metrics.Read(samples)
		cycles := samples[0].Value.Uint64()
		before := p.percent
		if p.next(cycles-seen, samples[1].Value.Uint64()); p.percent != before {
			debug.SetGCPercent(p.percent)
			if p.percent == calm {
				debug.FreeOSMemory()
			}
		}
		seen = cycles
	}
}

// pace is how far the heap may grow now.
type pace struct {
	percent int
	quiet   int // periods without a collection
}

// next is told of one period: its collections, and the bytes that outlived the
// last one.
func (p *pace) next(collections, live uint64) {
	if collections > 0 {
		p.quiet = 0
	} else {
		p.quiet++
	}
	switch {
	case p.quiet >= patience:
		p.percent = calm
	case collections >= many || p.percent != calm: // the heap may have become larger since
		p.percent = int(min(max(100*most/max(live, 1), calm), busy))
	}
}
