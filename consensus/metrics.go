package consensus

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	proposals *prometheus.CounterVec
	latency   prometheus.Histogram
	batch     prometheus.Histogram
	write     prometheus.Histogram
	stalls    prometheus.Counter
	applied   prometheus.Counter
	restores  prometheus.Counter
	elections prometheus.Counter
	leader    prometheus.Gauge
	refused   prometheus.Counter
}

func newMetrics() *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "agenticraft_consensus_" + name, Help: help})
	}
	histogram := func(name, help string, start, factor float64, count int) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "agenticraft_consensus_" + name, Help: help, Buckets: prometheus.ExponentialBuckets(start, factor, count),
		})
	}
	return &metrics{
		proposals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "agenticraft_consensus_proposals_total", Help: "Proposals made on this node, by result.",
		}, []string{"result"}),
		latency:   histogram("propose_seconds", "Time from proposal to answer.", 0.0005, 2, 14),
		batch:     histogram("batch_commands", "Commands merged into one raft entry.", 1, 2, 9),
		write:     histogram("log_write_seconds", "Time of one durable write to the raft log.", 0.0001, 2, 15),
		stalls:    counter("log_stalls_total", "Writes to the raft log that the disk did not finish in time."),
		applied:   counter("applied_commands_total", "Commands given to the state machine."),
		restores:  counter("restores_total", "Times the state was fetched because the leader's log no longer reached back."),
		elections: counter("leader_changes_total", "Changes of leader that this node saw."),
		leader: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "agenticraft_consensus_leader", Help: "1 while this node leads.",
		}),
		refused: counter("refused_streams_total", "Streams refused because the peer may not use them."),
	}
}

func (m *metrics) leading(yes bool) {
	m.leader.Set(0)
	if yes {
		m.leader.Set(1)
	}
}

func (m *metrics) proposed(err error, took time.Duration) {
	result := "committed"
	switch {
	case err == nil:
		m.latency.Observe(took.Seconds())
	case errors.Is(err, ErrAmbiguous):
		result = "ambiguous"
	default:
		result = "refused"
	}
	m.proposals.WithLabelValues(result).Inc()
}

func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.proposals, m.latency, m.batch, m.write, m.stalls, m.applied, m.restores, m.elections, m.leader, m.refused}
}
