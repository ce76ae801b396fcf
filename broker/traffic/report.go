package traffic

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

const gib = 1 << 30

// Prices are in dollars. Zero is free.
type Prices struct {
	// TransferPerGiB is that of a GiB from one zone to another, with what is billed
	// at both of its ends.
	TransferPerGiB   float64 `json:"transfer_per_gib"`
	PutPerMillion    float64 `json:"put_per_million"`
	GetPerMillion    float64 `json:"get_per_million"` // of HEAD too
	ListPerMillion   float64 `json:"list_per_million"`
	DeletePerMillion float64 `json:"delete_per_million"`
}

// DefaultPrices is what Amazon lists for us-east-1 and S3 Standard, as of November
// 2026: 0.01 $ a GB for each direction between availability zones of a region
// (https://aws.amazon.com/ec2/pricing/on-demand/#Data_Transfer), requests as on
// https://aws.amazon.com/s3/pricing/.
func DefaultPrices() Prices {
	return Prices{TransferPerGiB: 0.02, PutPerMillion: 5, GetPerMillion: 0.4, ListPerMillion: 5}
}

// Report says what the agent's traffic was, and what it costs.
type Report struct {
	Zone       string `json:"zone"` // the agent's
	Prices     Prices `json:"prices"`
	LastMinute Period `json:"last_minute"`
	SinceStart Period `json:"since_start"`
}

// Period is what was counted in some time.
type Period struct {
	Seconds       float64  `json:"seconds"`
	Links         []Link   `json:"links"`
	Requests      Requests `json:"requests"`
	ProducedBytes int64    `json:"produced_bytes"`

	CrossZoneBytes int64   `json:"cross_zone_bytes"`
	Dollars        Dollars `json:"dollars"`
	PerHour        float64 `json:"dollars_per_hour"`
	PerGiB         float64 `json:"dollars_per_gib_produced"` // 0 if nothing was

	// WithoutZones is what would have been if clients were sent to any agent.
	WithoutZones WithoutZones `json:"without_zones"`
}

// Link is the traffic of one kind between two zones, one of which is the agent's.
type Link struct {
	Kind  string `json:"kind"` // client_in, client_out, peer_in or peer_out
	From  string `json:"from_zone"`
	To    string `json:"to_zone"`
	Bytes int64  `json:"bytes"`
}

// Dollars is a cost by what it is for.
type Dollars struct {
	Transfer float64 `json:"transfer"`
	Put      float64 `json:"put"`
	Get      float64 `json:"get"`
	List     float64 `json:"list"`
	Delete   float64 `json:"delete"`
}

// WithoutZones is a period as it would have been.
type WithoutZones struct {
	CrossZoneBytes int64   `json:"cross_zone_bytes"`
	Transfer       float64 `json:"transfer_dollars"`
	PerHour        float64 `json:"dollars_per_hour"` // with requests, which are the same
	PerGiB         float64 `json:"dollars_per_gib_produced"`
}

// Requests are those to the object store that were answered.
type Requests struct {
	Put    int64 `json:"put"`
	Get    int64 `json:"get"` // HEAD too
	List   int64 `json:"list"`
	Delete int64 `json:"delete"`
}

// Report says how things are now.
func (m *Meter) Report() Report {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.look()
	return Report{
		Zone: m.cfg.Zone, Prices: m.cfg.Prices,
		LastMinute: m.cfg.Prices.period(m.before(now.at), now),
		SinceStart: m.cfg.Prices.period(m.first, now),
	}
}

// before returns what was counted a window ago, or at first. The caller holds mu.
func (m *Meter) before(now time.Time) totals {
	then := m.first
	for _, t := range m.recent {
		if t.at.After(now.Add(-window)) {
			break
		}
		then = t
	}
	return then
}

// totals is what was counted until an instant.
type totals struct {
	at               time.Time
	own              string            // zone
	links            map[string]volume // by the other end's zone
	requests         Requests
	produced         int64
	wouldHaveCrossed float64 // bytes
}

// volume has the bytes between a zone and the agent.
type volume struct{ clientIn, clientOut, peerIn, peerOut int64 }

// crossed is the part of the traffic between zones that the agent accounts for.
func (t *totals) crossed() int64 {
	var n int64
	for zone, b := range t.links {
		if zone != t.own && zone != "" && t.own != "" {
			n += b.clientIn + b.clientOut + b.peerOut
		}
	}
	return n
}

// period is what was counted from one instant to another.
func (p Prices) period(from, to totals) Period {
	out := Period{
		Seconds: to.at.Sub(from.at).Seconds(), Links: links(from, to),
		Requests: Requests{
			to.requests.Put - from.requests.Put, to.requests.Get - from.requests.Get,
			to.requests.List - from.requests.List, to.requests.Delete - from.requests.Delete,
		},
		ProducedBytes:  to.produced - from.produced,
		CrossZoneBytes: to.crossed() - from.crossed(),
	}
	out.Dollars = p.dollars(float64(out.CrossZoneBytes), out.Requests)
	would := to.wouldHaveCrossed - from.wouldHaveCrossed
	out.WithoutZones = WithoutZones{CrossZoneBytes: int64(would), Transfer: would / gib * p.TransferPerGiB}
	sum := out.Dollars.Sum()
	without := sum - out.Dollars.Transfer + out.WithoutZones.Transfer
	if out.Seconds > 0 {
		out.PerHour, out.WithoutZones.PerHour = sum/out.Seconds*3600, without/out.Seconds*3600
	}
	if out.ProducedBytes > 0 {
		produced := float64(out.ProducedBytes) / gib
		out.PerGiB, out.WithoutZones.PerGiB = sum/produced, without/produced
	}
	return out
}

func (p Prices) dollars(crossed float64, r Requests) Dollars {
	return Dollars{
		Transfer: crossed / gib * p.TransferPerGiB,
		Put:      float64(r.Put) / 1e6 * p.PutPerMillion,
		Get:      float64(r.Get) / 1e6 * p.GetPerMillion,
		List:     float64(r.List) / 1e6 * p.ListPerMillion,
		Delete:   float64(r.Delete) / 1e6 * p.DeletePerMillion,
	}
}

// Sum is the whole of it.
func (d Dollars) Sum() float64 { return d.Transfer + d.Put + d.Get + d.List + d.Delete }

// scaled is d times a factor.
func (d Dollars) scaled(by float64) Dollars {
	return Dollars{d.Transfer * by, d.Put * by, d.Get * by, d.List * by, d.Delete * by}
}

// links lists the traffic that there was, by zone and kind.
func links(from, to totals) []Link {
	all := []Link{}
	for _, zone := range slices.Sorted(maps.Keys(to.links)) {
		a, b := from.links[zone], to.links[zone]
		for _, l := range (volume{b.clientIn - a.clientIn, b.clientOut - a.clientOut, b.peerIn - a.peerIn, b.peerOut - a.peerOut}).links(zone, to.own) {
			if l.Bytes > 0 {
				all = append(all, l)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b Link) int { return cmp.Compare(a.Kind, b.Kind) })
	return all
}

// links names the directions between a zone and the agent's own.
func (b volume) links(zone, own string) []Link {
	return []Link{
		{"client_in", zone, own, b.clientIn},
		{"client_out", own, zone, b.clientOut},
		{"peer_in", zone, own, b.peerIn},
		{"peer_out", own, zone, b.peerOut},
	}
}
