package mesh

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	connected prometheus.Gauge
	dials     *prometheus.CounterVec
	refused   prometheus.Counter
	silent    prometheus.Counter
	streams   *prometheus.CounterVec
	adverts   *prometheus.CounterVec
	rtt       prometheus.Histogram
}

func newMetrics() *metrics {
	return &metrics{
		connected: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "agenticraft_mesh_connected_peers", Help: "Peers with an open connection.",
		}),
		dials: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "agenticraft_mesh_dials_total", Help: "Attempts to connect to a wanted peer, by result.",
		}, []string{"result"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "agenticraft_mesh_refused_total", Help: "Connections refused or cut because the peer is not allowed.",
		}),
		silent: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "agenticraft_mesh_silent_total", Help: "Connections closed because the peer did not answer pings.",
		}),
		streams: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "agenticraft_mesh_streams_total", Help: "Streams opened, by protocol and direction.",
		}, []string{"protocol", "direction"}),
		adverts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "agenticraft_mesh_adverts_total", Help: "Adverts received, by what became of them.",
		}, []string{"result"}),
		rtt: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "agenticraft_mesh_ping_seconds", Help: "Round trip of pings to connected peers.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 8),
		}),
	}
}

func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.connected, m.dials, m.refused, m.silent, m.streams, m.adverts, m.rtt}
}
