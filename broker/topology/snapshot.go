package topology

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/config"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// Topic is a topic with its effective configuration.
type Topic struct {
	metadata.Topic
	Config *config.Topic
}

// Snapshot is the cluster at one version of the store. It is immutable.
type Snapshot struct {
	ClusterID string
	Version   int64
	// TopicsVersion is a version since which no topic has changed.
	TopicsVersion int64
	// Sharing is how many agents are listed of all agent groups. All else is of this
	// agent's own.
	Sharing int
	Taken   time.Time // on the agent's monotonic clock, from before the store was asked
	Broker  *config.Broker

	agents  []metadata.Agent // by node id; all that are listed
	agentAt map[string]int   // by agent id, the place in agents
	alive   map[string]bool  // the zones of which an agent is heard of
	mute    bool             // a listed agent has no peer address
	byName  map[string]*Topic
	byID    map[uuid.UUID]*Topic
	leaders map[lease.Key]metadata.Leader
	shards  map[lease.Key]bool                      // those of leaders that are coordinators' shards
	leading map[string]bool                         // ids of the agents that lead partitions
	configs map[metadata.Resource]map[string]string // of what has some set, besides topics and the cluster
	groups  map[string]*config.Group                // that have some set
	group   *config.Group                           // any other
	fresh   time.Duration
}

// Agents returns the agents that are listed, by node id. Not to be changed.
func (s *Snapshot) Agents() []metadata.Agent { return s.agents }

// Agent finds a listed agent by its id.
func (s *Snapshot) Agent(id string) (metadata.Agent, bool) {
	if i, ok := s.agentAt[id]; ok {
		return s.agents[i], true
	}
	return metadata.Agent{}, false
}

// Listed says whether an agent of that node id is listed.
func (s *Snapshot) Listed(nodeID int32) bool {
	return slices.ContainsFunc(s.agents, func(a metadata.Agent) bool { return a.NodeID == nodeID })
}

// Without returns a snapshot in which agents of those sessions are not listed, so
// that others lead what they do.
func (s *Snapshot) Without(sessions []uuid.UUID) *Snapshot {
	gone := func(a metadata.Agent) bool { return slices.Contains(sessions, a.Session) }
	if !slices.ContainsFunc(s.agents, gone) {
		return s
	}
	n := *s
	n.list(slices.DeleteFunc(slices.Clone(s.agents), gone))
	return &n
}

// list lists the agents, which are sorted by node id.
func (s *Snapshot) list(agents []metadata.Agent) {
	s.agents, s.agentAt, s.alive, s.mute = agents, make(map[string]int, len(agents)), make(map[string]bool), false
	for i := range agents {
		a := &agents[i]
		s.agentAt[a.ID] = i
		s.mute = s.mute || a.PeerAddress == ""
		if a.Zone != "" && s.heard(a) {
			s.alive[a.Zone] = true
		}
	}
}

// Resource returns what was set on a resource; nil if nothing was. Not to be changed.
func (s *Snapshot) Resource(r metadata.Resource) map[string]string { return s.configs[r] }

// Resources returns the resources of a type on which something was set, by name.
func (s *Snapshot) Resources(kind kmsg.ConfigResourceType) []string {
	var names []string
	for r := range s.configs {
		if r.Type == int8(kind) {
			names = append(names, r.Name)
		}
	}
	slices.Sort(names)
	return names
}

// Group returns the effective configuration of a consumer group.
func (s *Snapshot) Group(name string) *config.Group {
	if g, ok := s.groups[name]; ok {
		return g
	}
	return s.group
}

// TopicByName returns nil if there is no such topic.
func (s *Snapshot) TopicByName(name string) *Topic { return s.byName[name] }

// TopicByID returns nil if there is no such topic.
func (s *Snapshot) TopicByID(id uuid.UUID) *Topic { return s.byID[id] }

// Topics returns all topics in the order of their names.
func (s *Snapshot) Topics() []*Topic {
	return slices.SortedFunc(maps.Values(s.byName), func(a, b *Topic) int { return cmp.Compare(a.Name, b.Name) })
}

// Heard says whether an agent of this snapshot was heard of lately.
func (s *Snapshot) Heard(a metadata.Agent) bool { return s.heard(&a) }

func (s *Snapshot) heard(a *metadata.Agent) bool { return a.HeartbeatAge < s.fresh }

// Committing is how many agents commit to the metadata store, or may: those that lead
// partitions, the one of that id, and all of other agent groups.
func (s *Snapshot) Committing(id string) int {
	n := 1 + max(s.Sharing-len(s.agents), 0)
	for i := range s.agents {
		if a := &s.agents[i]; a.ID != id && s.leading[a.ID] && s.heard(a) {
			n++
		}
	}
	return n
}

// OtherLeads says whether an agent besides the one of that id is heard of and
// leads something.
func (s *Snapshot) OtherLeads(id string) bool {
	for _, l := range s.leaders {
		if l.AgentID == "" || l.AgentID == id {
			continue
		}
		if a, ok := s.Agent(l.AgentID); ok && s.heard(&a) {
			return true
		}
	}
	return false
}

// apply returns the snapshot that follows s when the store answered d, for which
// agents are heard of whose heartbeats are not older than fresh.
func (s *Snapshot) apply(d *metadata.Topology, taken time.Time, fresh time.Duration, cfg Config) *Snapshot {
	n := &Snapshot{
		ClusterID: d.ClusterID, Version: d.Version, Sharing: d.Sharing, Taken: taken, Broker: s.Broker, fresh: fresh,
		TopicsVersion: s.TopicsVersion, byName: s.byName, byID: s.byID, leaders: s.leaders, shards: s.shards, leading: s.leading,
		configs: s.configs, groups: s.groups, group: s.group,
	}
	n.list(slices.SortedFunc(slices.Values(d.Agents), func(a, b metadata.Agent) int { return cmp.Compare(a.NodeID, b.NodeID) }))
	if len(d.Resources) > 0 {
		n.configs = maps.Clone(s.configs)
		for _, r := range d.Resources {
			n.configs[r.Resource] = r.Configs
		}
		maps.DeleteFunc(n.configs, func(_ metadata.Resource, set map[string]string) bool { return len(set) == 0 })
	}
	own := n.configs[metadata.Resource{Type: int8(kmsg.ConfigResourceTypeBroker), Name: strconv.Itoa(int(cfg.NodeID))}]
	brokerChanged := !maps.Equal(s.Broker.Dynamic(), d.Configs) || !maps.Equal(s.Broker.Own(), own)
	if brokerChanged {
		n.Broker = cfg.Broker.With(d.Configs, own)
	}
	if len(d.Resources) > 0 || brokerChanged {
		n.applyGroups()
	}
	if len(d.Topics)+len(d.Deleted) > 0 || brokerChanged {
		n.TopicsVersion = d.Version
		n.applyTopics(d, brokerChanged)
	}
	if len(d.Leaders)+len(d.Shards)+len(d.Deleted) > 0 {
		n.leaders = maps.Clone(s.leaders)
		gone := make(map[uuid.UUID]bool, len(d.Deleted))
		for _, id := range d.Deleted {
			gone[id] = true
		}
		maps.DeleteFunc(n.leaders, func(k lease.Key, _ metadata.Leader) bool { return gone[k.TopicID] })
		for _, l := range slices.Concat(d.Leaders, d.Shards) {
			n.leaders[l.Key] = l
		}
		n.leading = make(map[string]bool)
		for k, l := range n.leaders {
			if l.AgentID != "" && !metadata.IsShard(k) {
				n.leading[l.AgentID] = true
			}
		}
	}
	if len(d.Shards) > 0 {
		n.shards = maps.Clone(s.shards)
		for _, l := range d.Shards {
			n.shards[l.Key] = true
		}
	}
	return n
}

// applyGroups makes the configurations of groups of what is set.
func (s *Snapshot) applyGroups() {
	s.groups, s.group = make(map[string]*config.Group), s.Broker.Group(nil)
	for r, own := range s.configs {
		if r.Type == int8(kmsg.ConfigResourceTypeGroupConfig) {
			s.groups[r.Name] = s.Broker.Group(own)
		}
	}
}

func (s *Snapshot) applyTopics(d *metadata.Topology, brokerChanged bool) {
	s.byName, s.byID = maps.Clone(s.byName), maps.Clone(s.byID)
	for _, id := range d.Deleted {
		if t := s.byID[id]; t != nil {
			delete(s.byID, id)
			if s.byName[t.Name] == t {
				delete(s.byName, t.Name)
			}
		}
	}
	put := func(t metadata.Topic) {
		topic := &Topic{Topic: t, Config: s.Broker.Topic(t.Configs)}
		s.byName[t.Name], s.byID[t.ID] = topic, topic
	}
	if brokerChanged {
		for _, t := range s.byID {
			put(t.Topic)
		}
	}
	for _, t := range d.Topics {
		put(t)
	}
}
