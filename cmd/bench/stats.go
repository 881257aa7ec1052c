package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"
)

// contender is one way to do the work, measured beside the others.
type contender struct {
	name string
	// run does the work over and over for about d, and says how long each
	// time took and how long all of it took together.
	run    func(ctx context.Context, d time.Duration) (slice, error)
	slices []slice
}

// slice is what a contender did in one turn.
type slice struct {
	Each    []time.Duration `json:"each"`
	Elapsed time.Duration   `json:"elapsed"`
}

// interleave gives every contender its turn in each round, in the order ABC in
// one and CBA in the next, so that what drifts on the machine meets all alike.
// Each contender is tried once before it counts.
func interleave(ctx context.Context, rounds int, turn time.Duration, all []*contender) error {
	for _, c := range all {
		if _, err := c.run(ctx, 0); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	order := slices.Clone(all)
	for range rounds {
		for _, c := range order {
			s, err := c.run(ctx, turn)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			c.slices = append(c.slices, s)
		}
		slices.Reverse(order)
	}
	return nil
}

// repeated makes a contender's turn of something done one at a time: at least
// once, and until d is over.
func repeated(once func(context.Context) error) func(context.Context, time.Duration) (slice, error) {
	return func(ctx context.Context, d time.Duration) (slice, error) {
		var s slice
		for begun := time.Now(); ; {
			before := time.Now()
			if err := once(ctx); err != nil {
				return s, err
			}
			now := time.Now()
			s.Each = append(s.Each, now.Sub(before))
			if s.Elapsed = now.Sub(begun); s.Elapsed >= d {
				return s, nil
			}
		}
	}
}

// row sums a contender up; its percentiles are over all of its turns.
func (c *contender) row() Row {
	var each []float64
	var elapsed time.Duration
	for _, s := range c.slices {
		for _, d := range s.Each {
			each = append(each, milliseconds(d))
		}
		elapsed += s.Elapsed
	}
	r := summary(c.name, "ms", each)
	if elapsed > 0 {
		r.Rate = float64(len(each)) / elapsed.Seconds()
	}
	return r
}

// times is how many times as long as its peer a contender takes: the median,
// over the rounds, of the quotient of both medians in that round.
func times(c, peer *contender) float64 {
	return quotient(c, peer, func(s slice) float64 { return median(s.Each) })
}

// rates is how many times as much as its peer a contender gets done, alike.
func rates(c, peer *contender) float64 {
	return quotient(c, peer, func(s slice) float64 {
		return float64(len(s.Each)) / s.Elapsed.Seconds()
	})
}

func quotient(c, peer *contender, of func(slice) float64) float64 {
	var all []float64
	for i := range min(len(c.slices), len(peer.slices)) {
		if below := of(peer.slices[i]); below > 0 {
			all = append(all, of(c.slices[i])/below)
		}
	}
	return percentile(all, 50)
}

func median(all []time.Duration) float64 {
	ms := make([]float64, len(all))
	for i, d := range all {
		ms[i] = milliseconds(d)
	}
	return percentile(ms, 50)
}

// summary is a row of single values.
func summary(name, unit string, values []float64) Row {
	return Row{Name: name, Unit: unit, N: len(values), P50: percentile(values, 50), P99: percentile(values, 99)}
}

// percentile is the smallest value that at least p percent do not exceed
// (nearest rank), NaN if there are none.
func percentile(values []float64, p float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	rank := int(math.Ceil(p / 100 * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
