package broker

import (
	"context"
	"iter"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/config"
	"github.com/streamhouse/streamhouse/broker/fetch"
	"github.com/streamhouse/streamhouse/broker/group"
	"github.com/streamhouse/streamhouse/broker/partition"
	"github.com/streamhouse/streamhouse/broker/topology"
	"github.com/streamhouse/streamhouse/broker/zone"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/protocol"
)

// Store is what the handlers ask of the metadata themselves.
type Store interface {
	metadata.Topics
	metadata.Configs
	metadata.Producers
	metadata.Log
	Deregister(ctx context.Context, agentID string, session uuid.UUID) error // metadata.Agents'
}

// Peers is what is known of the other agents' lives: a peers.Watcher.
type Peers interface {
	// Settle waits a moment while it is being found out whether a peer has died.
	Settle(ctx context.Context)
	// Suspected returns the sessions of which that takes longer, and what is closed
	// when it is known.
	Suspected() (sessions []uuid.UUID, decided <-chan struct{})
}

// Parts is what a Broker is made of. All fields are required, but for those of which nil is spoken.
type Parts struct {
	NodeID     int32 // this agent's
	AgentID    string
	Store      Store
	Topology   *topology.Watcher
	Partitions *partition.Table
	Reader     *fetch.Reader
	Sessions   *fetch.Sessions
	Groups     *group.Coordinator
	// TopicGroups are the agent groups in which topics are made, if not in this agent's;
	// nil is none.
	TopicGroups config.TopicGroups
	Zones       *zone.Finder
	LogDir      string // what DescribeLogDirs calls the object store
	Log         *slog.Logger
	Level       *slog.LevelVar // of Log
	// Wrote is told of what each Produce request appends; nil: nobody is.
	Wrote func(req *protocol.Request, appends []partition.Append)
	// CutOff says whether this agent can't reach the metadata store for a while.
	CutOff func() bool
	Peers  Peers
	// Reachable says whether another agent takes what this one asks of it directly, so
	// that this one can append to what the other leads.
	Reachable func(agentID string) bool
}

// Broker answers Kafka's requests. Its handlers are safe for concurrent use.
type Broker struct {
	Parts
	producerIDs *idBlock
	departure   *departure
	members     members
	homing      *zone.Homing
}

// New returns a broker; Routes are its handlers.
func New(p Parts) *Broker {
	return &Broker{Parts: p, producerIDs: &idBlock{store: p.Store}, departure: newDeparture(), homing: zone.NewHoming()}
}

// How old a view of the cluster may be where a client asks for it.
const (
	// metadataMaxAge bounds what Metadata answers. Clients that were told that a
	// leader is another agent ask at once, and not many times: sarama thrice, with
	// 100 ms in between.
	metadataMaxAge = 50 * time.Millisecond
	// missPause bounds how often names that are unknown here, and lists of all
	// topics, cost a query. What is answered is current: a client may have created
	// the topic a moment ago at another agent, and some take no for an answer.
	missPause = 20 * time.Millisecond
	// missTimeout bounds how long a request whose order matters waits for a
	// fresher view.
	missTimeout = 5 * time.Second
	// viewTimeout bounds how long clients wait for what an older view answers too.
	viewTimeout = 2 * time.Second
	// readTimeout bounds what is asked of the store for a request that names no
	// timeout. Clients give up after 30 s or so.
	readTimeout = 20 * time.Second
)

// view returns a snapshot that is fit to be shown to clients. If the store
// cannot be asked, the last view is better than none.
func (b *Broker) view(ctx context.Context) *topology.Snapshot {
	return b.viewOf(ctx, func(ctx context.Context) (*topology.Snapshot, error) { return b.Topology.Refresh(ctx, metadataMaxAge) })
}

// living is a view without the agents that seem to be dead: clients that looked for
// another leader a moment too early would be sent back to them.
func (b *Broker) living(view *topology.Snapshot) *topology.Snapshot {
	suspected, _ := b.Peers.Suspected()
	return view.Without(suspected)
}

// adminView is the view for requests that administrators make: they may ask here
// for what they have just changed elsewhere.
func (b *Broker) adminView(ctx context.Context) *topology.Snapshot {
	return b.viewOf(ctx, func(ctx context.Context) (*topology.Snapshot, error) { return b.Topology.Refresh(ctx, 0) })
}

// currentView has every topic that a client can know of.
func (b *Broker) currentView(ctx context.Context) *topology.Snapshot {
	return b.viewOf(ctx, func(ctx context.Context) (*topology.Snapshot, error) { return b.Topology.Current(ctx, missPause) })
}

// viewFor is a view that has the topics, as far as there are any.
func (b *Broker) viewFor(ctx context.Context, topics iter.Seq[topicRef]) *topology.Snapshot {
	view := b.view(ctx)
	for ref := range topics {
		if ref.in(view) == nil {
			return b.currentView(ctx)
		}
	}
	return view
}

func (b *Broker) viewOf(ctx context.Context, look func(context.Context) (*topology.Snapshot, error)) *topology.Snapshot {
	ctx, cancel := context.WithTimeout(ctx, viewTimeout)
	defer cancel()
	s, err := look(ctx)
	if err != nil { // the watcher, which keeps trying, warns of it
		b.Log.Debug("answering from the last view of the cluster", "error", err, "age", time.Since(s.Taken))
	}
	return s
}

// refresh makes this agent see what it has just written. That the write is
// durable does not depend on it, so a failure is only logged.
func (b *Broker) refresh(ctx context.Context) {
	if _, err := b.Topology.Refresh(ctx, 0); err != nil {
		b.Log.Warn("cannot refresh the view of the cluster after a change", "error", err)
	}
}

// topicRef is how a request names a topic: by id in newer versions, else by name.
type topicRef struct {
	byID bool
	name string
	id   uuid.UUID
}

func (r topicRef) in(s *topology.Snapshot) *topology.Topic {
	if r.byID {
		return s.TopicByID(r.id)
	}
	return s.TopicByName(r.name)
}

// resolver finds the topics of one request. It asks for a fresher view at most
// once, and only if something is not known here yet.
type resolver struct {
	b         *Broker
	ctx       context.Context
	snapshot  *topology.Snapshot
	refreshed bool
	err       error // of the refresh: what is unknown since may yet be there
}

func (b *Broker) resolve(ctx context.Context) *resolver {
	return &resolver{b: b, ctx: ctx, snapshot: b.Topology.Snapshot()}
}

// partition returns the topic and the key of a partition of it. The error is
// metadata.ErrUnknownTopic, errUnknownTopicID, or that of the refresh if it could
// not be found out.
func (r *resolver) partition(ref topicRef, p int32) (*topology.Topic, lease.Key, error) {
	t := ref.in(r.snapshot)
	if t == nil || p >= t.Partitions {
		if err := r.refresh(); err != nil {
			return nil, lease.Key{}, err
		}
		t = ref.in(r.snapshot)
	}
	switch {
	case t == nil && ref.byID:
		return nil, lease.Key{}, errUnknownTopicID
	case t == nil || p < 0 || p >= t.Partitions:
		return nil, lease.Key{}, metadata.ErrUnknownTopic
	}
	return t, lease.Key{TopicID: t.ID, Partition: p}, nil
}

func (r *resolver) refresh() error {
	if !r.refreshed {
		r.refreshed = true
		ctx, cancel := context.WithTimeout(r.ctx, missTimeout)
		defer cancel()
		r.snapshot, r.err = r.b.Topology.Current(ctx, missPause)
	}
	return r.err
}

// rack is the wire's form of a zone, null where there is none.
func rack(zone string) *string {
	if zone == "" {
		return nil
	}
	return &zone
}

func metadataBroker(a metadata.Agent) kmsg.MetadataResponseBroker {
	m := kmsg.NewMetadataResponseBroker()
	m.NodeID, m.Host, m.Port, m.Rack = a.NodeID, a.Host, a.Port, rack(a.Zone)
	return m
}
