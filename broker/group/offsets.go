package group

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// commit validates as Kafka's OffsetMetadataManager.validateOffsetCommit does. A
// group that somebody commits to without being a member begins with that.
func (m *machine) commit(now time.Duration, c *call, r *CommitRequest) {
	if err := m.mayCommit(now, r); err != nil {
		m.reply(r.Group, c, nil, err)
		return
	}
	answer := make([]error, len(r.Offsets))
	accepted := make([]metadata.CommittedOffset, 0, len(r.Offsets))
	for i, o := range r.Offsets {
		if len(o.Metadata) > m.cfg.MaxMetadataBytes {
			answer[i] = kerr.OffsetMetadataTooLarge
			continue
		}
		accepted = append(accepted, o)
	}
	if len(accepted) == 0 {
		m.reply(r.Group, c, answer, nil)
		return
	}
	if m.groups[r.Group] == nil {
		m.newGroup(now, r.Group).changed()
	}
	delete(m.aging, r.Group)
	m.emit(storeCommit{c, metadata.OffsetCommit{Group: r.Group, Offsets: accepted}, answer})
}

func (m *machine) mayCommit(now time.Duration, r *CommitRequest) error {
	g := m.groups[r.Group]
	switch {
	case g != nil:
		return g.mayCommit(now, r)
	case r.Generation < 0:
		return nil // a consumer that manages its partitions itself, or an administrator
	case r.MemberEpochs:
		return kerr.GroupIDNotFound
	}
	return kerr.IllegalGeneration
}

// fetch asks for all positions of a group, for anybody, or for a member of the
// consumer protocol that knows its epoch.
func (m *machine) fetch(c *call, r *FetchRequest) {
	if g := m.consumer(r.Group); g != nil {
		if err := g.mayFetch(r); err != nil {
			m.reply(r.Group, c, nil, err)
			return
		}
	}
	m.emit(storeFetch{c, r.Group})
}

func (m *machine) deleteOffsets(c *call, r *DeleteOffsetsRequest) {
	g := m.groups[r.Group]
	if g == nil {
		m.reply(r.Group, c, nil, kerr.GroupIDNotFound)
		return
	}
	answer := make([]error, len(r.Partitions))
	keys := make([]lease.Key, 0, len(r.Partitions))
	for i, p := range r.Partitions {
		switch err := g.mayForget(p.Topic); {
		case err == nil:
			keys = append(keys, p.Key)
		case errors.Is(err, kerr.NonEmptyGroup):
			m.reply(r.Group, c, nil, err)
			return
		default:
			answer[i] = err
		}
	}
	if len(keys) == 0 {
		m.reply(r.Group, c, answer, nil)
		return
	}
	m.emit(storeForget{c, metadata.OffsetDelete{Group: r.Group, Keys: keys}, answer})
}

func (m *machine) delete(c *call, id string) {
	switch g := m.groups[id]; {
	case g == nil:
		m.reply(id, c, nil, kerr.GroupIDNotFound)
	case g.listed().State != Empty:
		m.reply(id, c, nil, kerr.NonEmptyGroup)
	default:
		g.discard()
		m.changed(id)
		m.reply(id, c, nil, nil)
	}
}

func (m *machine) describe(c *call, id string) {
	switch g := m.groups[id].(type) {
	case *group:
		m.reply(id, c, g.describe(), nil)
	case nil:
		m.reply(id, c, Description{State: Dead}, refuse(kerr.GroupIDNotFound, "Group %s not found.", id))
	default:
		m.reply(id, c, Description{State: Dead}, refuse(kerr.GroupIDNotFound, "Group %s is not a classic group.", id))
	}
}

func (m *machine) consumerDescribe(c *call, id string) {
	g, err := m.consumerGroup(id)
	if err != nil {
		m.reply(id, c, nil, err)
		return
	}
	m.reply(id, c, g.describe(), nil)
}

// list returns the groups in the order of their names.
func (m *machine) list() []Listed {
	all := make([]Listed, 0, len(m.groups))
	for _, g := range m.groups {
		all = append(all, g.listed())
	}
	slices.SortFunc(all, func(a, b Listed) int { return cmp.Compare(a.Group, b.Group) })
	return all
}

// retentionBatch is how many groups are looked at in one request to the store.
const retentionBatch = 500

// retentionDue asks for the positions that may have expired.
func (m *machine) retentionDue(now time.Duration) {
	m.timers.schedule(&m.retention, now+m.cfg.RetentionCheckInterval)
	var groups []string
	for id, g := range m.groups {
		if positions, group := g.expires(now); positions || group {
			groups = append(groups, id)
			m.aging[id] = true
		}
	}
	slices.Sort(groups)
	for batch := range slices.Chunk(groups, retentionBatch) {
		m.emit(storeOld{batch})
	}
}

// expireOffsets takes the positions that storeOld asked for. Groups that had a
// commit meanwhile are left to the next time.
func (m *machine) expireOffsets(now time.Duration, groups []string, old []metadata.OldOffsets) []effect {
	m.effects = m.effects[:0]
	for i, id := range groups {
		if g := m.groups[id]; g != nil && m.aging[id] {
			m.expireGroup(now, id, g, &old[i])
		}
		delete(m.aging, id)
	}
	return m.finish()
}

func (m *machine) expireGroup(now time.Duration, id string, g coordinated, old *metadata.OldOffsets) {
	positions, group := g.expires(now)
	keys, left := slices.Clone(old.Gone), old.Total
	if positions {
		for _, o := range old.Old {
			if g.mayForget(o.Topic) == nil {
				keys = append(keys, o.Key)
				left--
			}
		}
	}
	switch {
	case group && left == 0:
		g.discard()
		m.changed(id)
		m.emit(note{what: expired, group: id})
	case len(keys) > 0:
		m.emit(storeForget{forget: metadata.OffsetDelete{Group: id, Keys: keys}})
	}
}
