package push

import "github.com/prometheus/client_golang/prometheus"

type metrics struct{ deliveries *prometheus.CounterVec }

func newMetrics() metrics {
	return metrics{prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "agenticraft_push_deliveries_total",
		Help: "Attempts to deliver a push notification, by how they went: delivered, failed (to be repeated), given_up, gone.",
	}, []string{"result"})}
}

func (m metrics) all() []prometheus.Collector { return []prometheus.Collector{m.deliveries} }

func (m metrics) sent(result string) { m.deliveries.WithLabelValues(result).Inc() }
