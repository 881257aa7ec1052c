package sandbox

import "github.com/prometheus/client_golang/prometheus"

// metrics of one manager. Labels are bounded: backend names are configured,
// statuses and reasons are fixed sets.
type metrics struct {
	runs    *prometheus.CounterVec
	refused *prometheus.CounterVec
	seconds *prometheus.HistogramVec
	gauges  []prometheus.Collector
}

func newMetrics(q *queue) *metrics {
	gauge := func(name, help string, value func(Load) int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(value(q.load())) })
	}
	return &metrics{
		runs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "agenticraft_sandbox_runs_total",
			Help: "Programs run, by backend and how they ended.",
		}, []string{"backend", "status"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "agenticraft_sandbox_refused_total",
			Help: "Runs refused before a program started, by reason.",
		}, []string{"reason"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "agenticraft_sandbox_run_seconds",
			Help:    "Time a run held its slot, by backend.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 17), // 1 ms to 65 s
		}, []string{"backend"}),
		gauges: []prometheus.Collector{
			gauge("agenticraft_sandbox_slots", "Programs that may run at once.", func(l Load) int { return l.Slots }),
			gauge("agenticraft_sandbox_busy_slots", "Programs that run now.", func(l Load) int { return l.Busy }),
			gauge("agenticraft_sandbox_queued_runs", "Runs that wait for a slot.", func(l Load) int { return l.Queued }),
		},
	}
}

func (m *metrics) collectors() []prometheus.Collector {
	return append([]prometheus.Collector{m.runs, m.refused, m.seconds}, m.gauges...)
}
