package traffic

import "github.com/prometheus/client_golang/prometheus"

func desc(subsystem, name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName("streamhouse", subsystem, name), help, labels, nil)
}

var (
	bytesTotal = desc("traffic", "bytes_total",
		"Bytes between clients and this agent (client_in, client_out), and between other agents and this one (peer_in, peer_out), by the zones of both ends.",
		"kind", "from_zone", "to_zone")
	crossZoneBytes = desc("traffic", "cross_zone_bytes_total",
		"Bytes that crossed zones: those of this agent's clients, and those that it sent to other agents.")
	wouldHaveCrossed = desc("traffic", "would_have_crossed_bytes_total",
		"Bytes that would have crossed zones if clients were sent to any agent: those of this agent's clients, by the share of agents outside of their zone.")
	costTotal = desc("cost", "dollars_total",
		"Estimated cost since the start, by the configured prices.", "what")
	costPerHour = desc("cost", "dollars_per_hour",
		"Estimated cost of an hour like the last minute, by the configured prices.", "what")
	costPerGiB = desc("cost", "dollars_per_gib",
		"Estimated cost of the last minute for each GiB of Produce requests; 0 if there were none.")
	avoidedPerHour = desc("cost", "avoided_dollars_per_hour",
		"What an hour like the last minute would have cost more if clients were sent to agents of any zone.")
)

// Describe implements prometheus.Collector.
func (m *Meter) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{bytesTotal, crossZoneBytes, wouldHaveCrossed, costTotal, costPerHour, costPerGiB, avoidedPerHour} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (m *Meter) Collect(to chan<- prometheus.Metric) {
	m.mu.Lock()
	now := m.look()
	minute := m.cfg.Prices.period(m.before(now.at), now)
	m.mu.Unlock()

	counter := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for zone, b := range now.links {
		for _, l := range b.links(zone, now.own) {
			counter(bytesTotal, float64(l.Bytes), l.Kind, l.From, l.To)
		}
	}
	crossed := float64(now.crossed())
	counter(crossZoneBytes, crossed)
	counter(wouldHaveCrossed, now.wouldHaveCrossed)
	sum := m.cfg.Prices.dollars(crossed, now.requests)
	var perHour float64 // of what a minute has
	if minute.Seconds > 0 {
		perHour = 3600 / minute.Seconds
	}
	hourly := minute.Dollars.scaled(perHour)
	for _, d := range []struct {
		what        string
		sum, hourly float64
	}{
		{"transfer", sum.Transfer, hourly.Transfer},
		{"put", sum.Put, hourly.Put},
		{"get", sum.Get, hourly.Get},
		{"list", sum.List, hourly.List},
		{"delete", sum.Delete, hourly.Delete},
	} {
		counter(costTotal, d.sum, d.what)
		gauge(costPerHour, d.hourly, d.what)
	}
	gauge(costPerGiB, minute.PerGiB)
	gauge(avoidedPerHour, (minute.WithoutZones.Transfer-minute.Dollars.Transfer)*perHour)
}
