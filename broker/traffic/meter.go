package traffic

import (
	"context"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// interval is the time between two looks at the counters.
	interval = 5 * time.Second
	// window is what rates are taken over.
	window = time.Minute
	// maxZones bounds the zones that are told apart, and so the labels of metrics.
	maxZones = 64
	// Other is the zone of those whose zone no agent has and no setting names.
	Other = "other"
)

// Config is what a Meter knows of the cluster. All but Zones is required.
type Config struct {
	// Zone is the agent's own; "" if it has none, and then nothing crosses.
	Zone string
	// Zones are told apart, besides those of agents.
	Zones []string
	// ZoneOf says where a client is, as zone.Finder does. It is asked once a request.
	ZoneOf func(clientID string, addr net.Addr) (zone string, known bool)
	// Agents has the zone of each agent that is alive, this one included.
	Agents func() []string
	// Requests is how many of the object store's requests were answered since the
	// start, by objstore's names of operations: put, get, head, list and delete.
	Requests func(operation string) int64
	Prices   Prices
}

// Meter counts an agent's traffic. It is safe for concurrent use, and a collector of
// metrics.
type Meter struct {
	cfg   Config
	zones atomic.Pointer[map[string]*link] // never changed once it is there; has own and Other

	mu      sync.Mutex
	agents  map[string]int   // that are alive, by zone
	alive   int              // agents
	counted map[string]int64 // bytes of clients that would has
	would   float64          // bytes that would have crossed
	first   totals
	recent  []totals // of a window, oldest first
}

// link has the bytes between a zone and the agent.
type link struct {
	clientIn, clientOut, peerIn, peerOut atomic.Int64
	produced                             atomic.Int64 // of clientIn, in Produce requests
}

// New makes a meter, and registers its metrics with reg.
func New(cfg Config, reg prometheus.Registerer) *Meter {
	m := &Meter{cfg: cfg, counted: make(map[string]int64)}
	m.zones.Store(&map[string]*link{})
	m.mu.Lock()
	m.first = m.look()
	m.mu.Unlock()
	reg.MustRegister(m)
	return m
}

// Served counts a request of a client that was answered: bytes in and out, and
// whether it was a Produce.
func (m *Meter) Served(clientID string, addr net.Addr, in, out int, produce bool) {
	zone, _ := m.cfg.ZoneOf(clientID, addr)
	l := m.link(zone)
	l.clientIn.Add(int64(in))
	l.clientOut.Add(int64(out))
	if produce {
		l.produced.Add(int64(in))
	}
}

// Exchanged counts bytes from and to agents of a zone.
func (m *Meter) Exchanged(zone string, in, out int64) {
	l := m.link(zone)
	l.peerIn.Add(in)
	l.peerOut.Add(out)
}

func (m *Meter) link(zone string) *link {
	zones := *m.zones.Load()
	if l, ok := zones[zone]; ok {
		return l
	}
	return zones[Other]
}

// Run looks at the counters until ctx ends, and returns nil then.
func (m *Meter) Run(ctx context.Context) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			m.mu.Lock()
			m.keep(m.look())
			m.mu.Unlock()
		}
	}
}

// keep adds to recent, of which it keeps as much as a window takes. The caller holds
// mu.
func (m *Meter) keep(t totals) {
	m.recent = append(m.recent, t)
	begun := t.at.Add(-window)
	// The youngest that a whole window has passed since stays.
	old := 0
	for old+1 < len(m.recent) && !m.recent[old+1].at.After(begun) {
		old++
	}
	m.recent = slices.Delete(m.recent, 0, old)
}

// look takes in which agents there are, and what was counted since the last look.
// The caller holds mu.
func (m *Meter) look() totals {
	m.meet(m.cfg.Agents())
	t := totals{
		at: time.Now(), own: m.cfg.Zone, links: make(map[string]volume),
		requests: Requests{
			Put: m.cfg.Requests("put"), Get: m.cfg.Requests("get") + m.cfg.Requests("head"),
			List: m.cfg.Requests("list"), Delete: m.cfg.Requests("delete"),
		},
	}
	for zone, l := range *m.zones.Load() {
		b := volume{l.clientIn.Load(), l.clientOut.Load(), l.peerIn.Load(), l.peerOut.Load()}
		clients := b.clientIn + b.clientOut
		m.would += float64(clients-m.counted[zone]) * m.outside(zone)
		m.counted[zone] = clients
		t.links[zone] = b
		t.produced += l.produced.Load()
	}
	t.wouldHaveCrossed = m.would
	return t
}

// outside is the share of the agents that are alive and not in a zone.
func (m *Meter) outside(zone string) float64 {
	if m.alive == 0 || m.cfg.Zone == "" || zone == "" {
		return 0
	}
	return 1 - float64(m.agents[zone])/float64(m.alive)
}

// meet takes in which agents there are.
func (m *Meter) meet(agents []string) {
	m.agents, m.alive = make(map[string]int), len(agents)
	for _, zone := range agents {
		m.agents[zone]++
	}
	zones := *m.zones.Load()
	var unmet []string
	for _, zone := range slices.Concat([]string{m.cfg.Zone, Other}, m.cfg.Zones, agents) {
		if zones[zone] == nil && !slices.Contains(unmet, zone) && len(zones)+len(unmet) < maxZones {
			unmet = append(unmet, zone)
		}
	}
	if len(unmet) == 0 {
		return
	}
	zones = maps.Clone(zones)
	for _, zone := range unmet {
		zones[zone] = new(link)
	}
	m.zones.Store(&zones)
}
