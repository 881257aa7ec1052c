package audit

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	size        prometheus.Gauge
	indexed     prometheus.Gauge
	entries     prometheus.Counter
	applySecs   prometheus.Histogram
	commits     prometheus.Histogram
	stalled     prometheus.Gauge
	checkpoint  prometheus.Gauge
	cosigned    prometheus.Counter
	alarms      prometheus.Counter
	checkpoints prometheus.Counter
	witnessed   prometheus.Gauge
}

func newMetrics() *metrics {
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "agenticraft", Subsystem: "audit", Name: name, Help: help}
	}
	return &metrics{
		size:        prometheus.NewGauge(prometheus.GaugeOpts(opts("size_entries", "Entries in the log."))),
		indexed:     prometheus.NewGauge(prometheus.GaugeOpts(opts("indexed_entries", "Entries that the query index covers."))),
		entries:     prometheus.NewCounter(prometheus.CounterOpts(opts("entries_total", "Entries written since the start."))),
		checkpoint:  prometheus.NewGauge(prometheus.GaugeOpts(opts("checkpoint_size_entries", "Size of the newest quorum checkpoint."))),
		checkpoints: prometheus.NewCounter(prometheus.CounterOpts(opts("checkpoints_total", "Quorum checkpoints seen since the start."))),
		witnessed:   prometheus.NewGauge(prometheus.GaugeOpts(opts("witnessed_size_entries", "Size of the newest checkpoint that an auditor countersigned."))),
		cosigned:    prometheus.NewCounter(prometheus.CounterOpts(opts("cosignatures_total", "Checkpoints that this keeper signed."))),
		alarms:      prometheus.NewCounter(prometheus.CounterOpts(opts("alarms_total", "Contradicting histories seen."))),
		applySecs: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "agenticraft", Subsystem: "audit", Name: "apply_seconds",
			Help:    "Time of one Apply, without the flush to disk unless it had to commit.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16),
		}),
		commits: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "agenticraft", Subsystem: "audit", Name: "commit_seconds",
			Help:    "Time of one commit of applied entries to disk.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
		stalled: prometheus.NewGauge(prometheus.GaugeOpts(opts("stalled", "1 while the disk is full and nothing can be written."))),
	}
}

func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.size, m.indexed, m.entries, m.applySecs, m.commits, m.stalled, m.checkpoint, m.checkpoints, m.cosigned, m.alarms, m.witnessed}
}

func (m *metrics) applied(size, added uint64, took time.Duration) {
	m.size.Set(float64(size))
	m.entries.Add(float64(added))
	if took > 0 {
		m.applySecs.Observe(took.Seconds())
	}
}
