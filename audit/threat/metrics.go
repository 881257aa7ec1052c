package threat

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	seen    *prometheus.CounterVec
	dropped prometheus.Counter
}

func newMetrics() *metrics {
	m := &metrics{
		seen: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "agenticraft", Subsystem: "threat", Name: "alerts_total",
			Help: "Alerts that this node's own reading of the log gave, by rule; the leader writes them.",
		}, []string{"rule"}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "agenticraft", Subsystem: "threat", Name: "dropped_total",
			Help: "Alerts that were too many to be written, or for which no leader was found in time.",
		}),
	}
	for _, rule := range Rules() {
		m.seen.WithLabelValues(rule) // there from the start, so that its rise is seen
	}
	return m
}

func (m *metrics) all() []prometheus.Collector { return []prometheus.Collector{m.seen, m.dropped} }
