package compattests

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/compat-tests/clients"
	"github.com/streamhouse/streamhouse/compat-tests/scenario"
)

const (
	pollWait = 200 * time.Millisecond
	// pollLimit is no multiple of what a partition grows by: kafka-python 3.0.12 never goes on with a partition that is
	// paused just after a poll that ended, at its limit, with the partition's last record.
	pollLimit = 50
)

// groups has members of groups read a topic while it is written.
func (r *clientRun) groups(t *testing.T) {
	t.Helper()
	topic := &growingTopic{clientRun: r, name: "groups-" + r.Name()}
	ctx := deadline(t, clientTimeout)
	if err := errors.Join(r.CreateTopic(ctx, topic.name, scenario.TopicConfigs()), topic.grow(ctx)); err != nil {
		t.Fatal(err)
	}
	r.feature(t, featureSeek, topic.seek)
	r.feature(t, featurePause, topic.pause)
	r.feature(t, featureRestart, topic.restart)
	r.feature(t, featureRebalance, topic.rebalance)
}

// growingTopic is a topic to which its client adds a few records now and then.
type growingTopic struct {
	*clientRun
	name  string
	log   scenario.Log
	round int
	begin int64 // when the first record was written, in milliseconds since 1970
}

// grow adds records to each partition.
func (g *growingTopic) grow(ctx context.Context) error {
	const records = 20
	if g.round == 0 {
		g.begin = time.Now().UnixMilli()
	}
	few := scenario.Few(g.seed, g.round, records, g.Profile())
	g.round++
	if _, err := g.Produce(ctx, g.name, scenario.Codecs[0], few); err != nil {
		return fmt.Errorf("produce: %w", err)
	}
	g.log.Append(few)
	return nil
}

// seek moves a member back in one partition, and then on.
func (g *growingTopic) seek(ctx context.Context) (err error) {
	m, err := g.joined(ctx, "seek-"+g.Name())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Leave(ctx)) }()
	const partition = 1
	for _, offset := range []int64{3, 0, 15} {
		if err := m.Seek(ctx, partition, offset); err != nil {
			return fmt.Errorf("seek: %w", err)
		}
		from := g.log.Ends()
		from[partition] = offset
		if err := g.readsFrom(ctx, from, m); err != nil {
			return fmt.Errorf("after a seek to %d: %w", offset, err)
		}
	}
	return nil
}

// pause pauses a partition while records arrive.
func (g *growingTopic) pause(ctx context.Context) (err error) {
	m, err := g.joined(ctx, "pause-"+g.Name())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Leave(ctx)) }()
	const paused = 1
	if err := m.Pause(ctx, paused); err != nil {
		return fmt.Errorf("pause: %w", err)
	}
	running, resumed := g.log.Ends(), g.log.Ends()
	if err := g.grow(ctx); err != nil {
		return err
	}
	for p, end := range g.log.Ends() {
		if p == paused {
			running[p] = end
		} else {
			resumed[p] = end
		}
	}
	if err := g.readsFrom(ctx, running, m); err != nil {
		return fmt.Errorf("paused: %w", err)
	}
	// The records of the paused partition have had all that time to arrive; one more poll shows that they don't.
	if err := m.poll(ctx); err != nil || len(m.records) > 0 {
		return errors.Join(fmt.Errorf("a partition that is paused returned %d records", len(m.records)), err)
	}
	if err := m.owns(ctx, scenario.Partitions); err != nil {
		return fmt.Errorf("paused: %w", err)
	}
	if err := m.Resume(ctx, paused); err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	if err := g.readsFrom(ctx, resumed, m); err != nil {
		return fmt.Errorf("resumed: %w", err)
	}
	return nil
}

// restart replaces a member by one of the same group: it goes on at the commit, which is not the end of what was read.
func (g *growingTopic) restart(ctx context.Context) error {
	group := "restart-" + g.Name()
	first, err := g.joined(ctx, group)
	if err != nil {
		return err
	}
	if err := first.Commit(ctx); err != nil {
		return errors.Join(fmt.Errorf("commit: %w", err), first.Leave(ctx))
	}
	committed := g.log.Ends()
	err = g.grow(ctx)
	if err == nil {
		err = g.readsFrom(ctx, committed, first)
	}
	if err := errors.Join(err, first.Leave(ctx)); err != nil {
		return err
	}
	second, err := g.join(ctx, group)
	if err != nil {
		return err
	}
	if err := errors.Join(g.readsFrom(ctx, committed, second), second.Leave(ctx)); err != nil {
		return fmt.Errorf("restarted: %w", err)
	}
	return nil
}

// rebalance lets a second member come and go, while records are written: none is missed.
func (g *growingTopic) rebalance(ctx context.Context) error {
	group := "rebalance-" + g.Name()
	stays, err := g.joined(ctx, group)
	if err != nil {
		return err
	}
	if err := stays.Commit(ctx); err != nil && !errors.Is(err, clients.ErrCommitsItself) {
		return errors.Join(fmt.Errorf("commit: %w", err), stays.Leave(ctx))
	}
	goes, err := g.join(ctx, group)
	if err != nil {
		return err
	}
	if err := g.share(ctx, stays, goes); err != nil {
		return err
	}
	for _, m := range []*member{stays, goes} {
		if err := m.Commit(ctx); err != nil && !errors.Is(err, clients.ErrCommitsItself) {
			return fmt.Errorf("commit, as two: %w", err)
		}
	}
	if err := goes.Leave(ctx); err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	from := g.log.Ends()
	if err := g.grow(ctx); err != nil {
		return err
	}
	if err := g.seesFrom(ctx, from, stays); err != nil {
		return fmt.Errorf("alone again: %w", err)
	}
	return errors.Join(stays.owns(ctx, scenario.Partitions), stays.Leave(ctx))
}

// share has both members read what is written while they rebalance, waits until each has partitions, and has them read
// what is written then.
func (g *growingTopic) share(ctx context.Context, a, b *member) error {
	from := g.log.Ends()
	if err := g.grow(ctx); err != nil {
		return err
	}
	if err := g.seesFrom(ctx, from, a, b); err != nil {
		return fmt.Errorf("in the middle: %w", err)
	}
	if err := poll(ctx, func() (string, error) { return shared(ctx, a, b) }, a, b); err != nil {
		return err
	}
	from = g.log.Ends()
	if err := g.grow(ctx); err != nil {
		return err
	}
	if err := g.seesFrom(ctx, from, a, b); err != nil {
		return fmt.Errorf("as two members: %w", err)
	}
	return nil
}

// shared says what is wrong with how two members share the partitions.
func shared(ctx context.Context, a, b *member) (string, error) {
	ofA, err := a.Assignment(ctx)
	if err != nil {
		return "", err
	}
	ofB, err := b.Assignment(ctx)
	if err != nil {
		return "", err
	}
	all := slices.Sorted(slices.Values(slices.Concat(ofA, ofB)))
	if len(ofA) == 0 || len(ofB) == 0 || !slices.Equal(all, []int32{0, 1, 2}) {
		return fmt.Sprintf("one has the partitions %v, the other %v", ofA, ofB), nil
	}
	return "", nil
}

// member is a member of a group and what it has returned.
type member struct {
	clients.Member
	records []scenario.Record
}

func (m *member) poll(ctx context.Context) error {
	records, err := m.Poll(ctx, pollLimit, pollWait)
	if err != nil {
		return fmt.Errorf("poll: %w", err)
	}
	if len(records) > pollLimit {
		return fmt.Errorf("poll returned %d records, more than %d", len(records), pollLimit)
	}
	m.records = append(m.records, records...)
	return nil
}

// owns polls the member until it has n partitions: kcat tells of records and of assignments in two streams.
func (m *member) owns(ctx context.Context, n int) error {
	return poll(ctx, func() (string, error) {
		assigned, err := m.Assignment(ctx)
		if err != nil {
			return "", fmt.Errorf("assignment: %w", err)
		}
		if len(assigned) != n {
			return fmt.Sprintf("the member has the partitions %v, want %d", assigned, n), nil
		}
		return "", nil
	}, m)
}

func (g *growingTopic) join(ctx context.Context, group string) (*member, error) {
	joined, err := g.Join(ctx, g.name, group)
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	return &member{Member: joined}, nil
}

// joined returns the only member of a new group, which has read the whole topic.
func (g *growingTopic) joined(ctx context.Context, group string) (*member, error) {
	m, err := g.join(ctx, group)
	if err != nil {
		return nil, err
	}
	err = g.readsFrom(ctx, [scenario.Partitions]int64{}, m)
	if err == nil {
		err = m.owns(ctx, scenario.Partitions)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the first member: %w", err), m.Leave(ctx))
	}
	return m, nil
}

// readsFrom polls a member until it has returned as many records as there are from the given offsets on, and demands
// just these.
func (g *growingTopic) readsFrom(ctx context.Context, from [scenario.Partitions]int64, m *member) error {
	return g.compareFrom(ctx, from, func(read []scenario.Record) []scenario.Record { return read }, m)
}

// seesFrom polls members until they have returned every record from the given offsets on. A partition that changes
// hands is read from its last commit on, so what was returned may come again.
func (g *growingTopic) seesFrom(ctx context.Context, from [scenario.Partitions]int64, members ...*member) error {
	return g.compareFrom(ctx, from, func(read []scenario.Record) []scenario.Record {
		read = slices.DeleteFunc(read, func(r scenario.Record) bool { return r.Offset < from[r.Partition] })
		place := func(a, b scenario.Record) int {
			return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
		}
		slices.SortStableFunc(read, place)
		return slices.CompactFunc(read, func(a, b scenario.Record) bool { return place(a, b) == 0 })
	}, members...)
}

// compareFrom polls members until they have returned enough records, as tidy leaves them, and compares these.
func (g *growingTopic) compareFrom(ctx context.Context, from [scenario.Partitions]int64,
	tidy func([]scenario.Record) []scenario.Record, members ...*member,
) error {
	want := g.log.From(from)
	var read []scenario.Record
	err := poll(ctx, func() (string, error) {
		for _, m := range members {
			read = append(read, m.records...)
			m.records = nil
		}
		read = tidy(read)
		if len(read) < want.Len() {
			return fmt.Sprintf("read %d of %d records", len(read), want.Len()), nil
		}
		return "", nil
	}, members...)
	if err != nil {
		return err
	}
	if err := g.log.AdoptTimestamps(read, g.begin, time.Now().UnixMilli()); err != nil {
		return err
	}
	want = g.log.From(from)
	return want.Compare(read)
}

// poll polls members in turns until nothing is missing.
func poll(ctx context.Context, missing func() (string, error), members ...*member) error {
	for {
		what, err := missing()
		if err != nil || what == "" {
			return err
		}
		for _, m := range members {
			if err := m.poll(ctx); err != nil {
				return errors.Join(err, errors.New(what))
			}
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
}
