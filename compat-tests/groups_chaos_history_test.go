package compattests

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// chaosMember is a member of a group: it polls, and commits what it polled before it lets go of its partitions.
type chaosMember struct {
	*chaos
	group    chaosGroup
	name     string
	protocol string // a name in chaosProtocols
}

// run lives until ctx ends, and leaves the group unless it is static.
func (m *chaosMember) run(ctx context.Context, options ...kgo.Opt) error {
	options = append(options, chaosProtocols[m.protocol]...)
	client, err := kgo.NewClient(append(options,
		kgo.SeedBrokers(m.seeds...), kgo.AlwaysRetryEOF(), kgo.ClientID(m.name),
		kgo.ConsumerGroup(m.group.name), kgo.ConsumeTopics(chaosTopic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(),
		// A session outlasts each fault: nobody loses partitions but by a rebalance.
		kgo.SessionTimeout(45*time.Second), kgo.RebalanceTimeout(20*time.Second), kgo.HeartbeatInterval(time.Second),
		kgo.RetryTimeout(20*time.Second),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
			m.history.assigned(m.group.name, m.name, partitions[chaosTopic])
		}),
		kgo.OnPartitionsRevoked(m.letGo("revoked")), kgo.OnPartitionsLost(m.letGo("lost")),
	)...)
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	defer m.history.left(m.name)
	defer client.CloseAllowingRebalance()
	for ctx.Err() == nil {
		m.pollAndCommit(ctx, client)
	}
	return nil
}

func (m *chaosMember) pollAndCommit(ctx context.Context, client *kgo.Client) {
	const patience, most = 500 * time.Millisecond, 200
	polling, cancel := context.WithTimeout(ctx, patience)
	fetches := client.PollRecords(polling, most)
	cancel()
	defer client.AllowRebalance()
	fetches.EachError(func(_ string, _ int32, err error) {
		if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
			reason, _, _ := strings.Cut(err.Error(), "member ") // what follows is its id
			m.count("poll: %s", reason)
		}
	})
	if fetches.NumRecords() == 0 {
		return
	}
	committing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
	defer cancel()
	client.CommitOffsetsSync(committing, client.UncommittedOffsets(), m.committed)
}

func (m *chaosMember) committed(_ *kgo.Client, request *kmsg.OffsetCommitRequest, response *kmsg.OffsetCommitResponse, err error) {
	if err != nil {
		m.count("commit: %v", err)
		return
	}
	for i, topic := range response.Topics {
		for j, p := range topic.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				m.count("commit: %v", err)
				continue
			}
			m.count("partitions committed")
			m.history.committedOffset(groupPartition{m.group.name, p.Partition}, request.Topics[i].Partitions[j].Offset, m.name)
		}
	}
}

func (m *chaosMember) letGo(how string) func(context.Context, *kgo.Client, map[string][]int32) {
	return func(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
		if len(partitions) > 0 {
			m.count("%s", how)
		}
		m.history.released(m.group.name, m.name, partitions[chaosTopic])
	}
}

// count counts what happened to members of this kind.
func (m *chaosMember) count(format string, args ...any) {
	m.history.count(fmt.Sprintf("%s as %s: ", m.group.kind, m.protocol) + fmt.Sprintf(format, args...))
}

type groupPartition struct {
	group     string
	partition int32
}

// groupHistory is who owned what, and which offsets were committed and fetched. It is safe for concurrent use.
type groupHistory struct {
	mu     sync.Mutex
	owners map[groupPartition]string // names of members
	// committed are the highest offsets whose commits were acknowledged, fetched those that OffsetFetch returned.
	committed, fetched map[groupPartition]int64
	commits            map[string]int // acknowledged, by group
	counts             map[string]int // by what happened
	violations         []string
}

func newGroupHistory() *groupHistory {
	return &groupHistory{
		owners:    make(map[groupPartition]string),
		committed: make(map[groupPartition]int64),
		fetched:   make(map[groupPartition]int64),
		commits:   make(map[string]int),
		counts:    make(map[string]int),
	}
}

func (h *groupHistory) count(what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.counts[what]++
}

// violate is called with the lock held.
func (h *groupHistory) violate(format string, args ...any) {
	h.violations = append(h.violations, time.Now().UTC().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

// assigned: a member was given partitions. Nobody else may own them still.
func (h *groupHistory) assigned(group, member string, partitions []int32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range partitions {
		at := groupPartition{group, p}
		if owner := h.owners[at]; owner != "" && owner != member {
			h.violate("%s: partition %d was assigned to %s while %s owned it", group, p, member, owner)
		}
		h.owners[at] = member
	}
}

// released: a member has let go of partitions.
func (h *groupHistory) released(group, member string, partitions []int32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range partitions {
		if at := (groupPartition{group, p}); h.owners[at] == member {
			delete(h.owners, at)
		}
	}
}

// left: a member is closed. A static one owned partitions to the end.
func (h *groupHistory) left(member string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	maps.DeleteFunc(h.owners, func(_ groupPartition, owner string) bool { return owner == member })
}

// committedOffset: a member's commit was acknowledged. Members begin where the last commit ended, so it is no lower.
func (h *groupHistory) committedOffset(at groupPartition, offset int64, member string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.commits[at.group]++
	if offset < h.committed[at] {
		h.violate("%s: partition %d: commit of %d by %s was accepted after one of %d", at.group, at.partition, offset, member, h.committed[at])
	}
	h.committed[at] = max(h.committed[at], offset)
}

// acknowledged returns the offsets whose commits were acknowledged so far.
func (h *groupHistory) acknowledged() map[groupPartition]int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.committed)
}

// fetchedOffsets: OffsetFetch returned offsets, and was sent when those of acknowledged had been committed.
func (h *groupHistory) fetchedOffsets(group string, offsets kadm.OffsetResponses, acknowledged map[groupPartition]int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	offsets.Each(func(o kadm.OffsetResponse) {
		if o.Err != nil {
			return
		}
		at := groupPartition{group, o.Partition}
		if least := max(acknowledged[at], h.fetched[at]); o.At < least {
			h.violate("%s: partition %d: fetched a committed offset of %d after one of %d", group, o.Partition, o.At, least)
		}
		h.fetched[at] = max(h.fetched[at], o.At)
	})
}

// judge demands that nothing was violated, and that each group did commit.
func (h *groupHistory) judge(t *testing.T, groups []chaosGroup) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, v := range h.violations {
		t.Error(v)
	}
	for _, g := range groups {
		if h.commits[g.name] == 0 {
			t.Errorf("group %s committed nothing, so nothing was tested", g.name)
		}
	}
}

// TestGroupHistory shows that each violation is found, and that what groups may do is none.
func TestGroupHistory(t *testing.T) {
	const group = "g"
	at := groupPartition{group, 0}
	fetch := func(h *groupHistory, offset int64, acknowledged map[groupPartition]int64) {
		var offsets kadm.Offsets
		offsets.AddOffset(chaosTopic, at.partition, offset, -1)
		responses := make(kadm.OffsetResponses)
		offsets.Each(func(o kadm.Offset) { responses.Add(kadm.OffsetResponse{Offset: o}) })
		h.fetchedOffsets(group, responses, acknowledged)
	}
	for _, test := range []struct {
		name  string
		steps func(h *groupHistory)
		want  int
	}{
		{"handed on", func(h *groupHistory) {
			h.assigned(group, "a", []int32{0})
			h.released(group, "a", []int32{0})
			h.assigned(group, "b", []int32{0})
			h.left("b")
			h.assigned(group, "a", []int32{0})
		}, 0},
		{"two owners", func(h *groupHistory) {
			h.assigned(group, "a", []int32{0})
			h.assigned(group, "b", []int32{0})
		}, 1},
		{"commits go on", func(h *groupHistory) {
			h.committedOffset(at, 5, "a")
			h.committedOffset(at, 5, "b")
		}, 0},
		{"a commit goes back", func(h *groupHistory) {
			h.committedOffset(at, 5, "a")
			h.committedOffset(at, 4, "b")
		}, 1},
		{"a commit under way", func(h *groupHistory) {
			before := h.acknowledged()
			h.committedOffset(at, 5, "a")
			fetch(h, 4, before)
		}, 0},
		{"an acknowledged commit is lost", func(h *groupHistory) {
			h.committedOffset(at, 5, "a")
			fetch(h, 4, h.acknowledged())
		}, 1},
		{"what was fetched is lost", func(h *groupHistory) {
			fetch(h, 5, nil)
			fetch(h, 4, nil)
		}, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newGroupHistory()
			if test.steps(h); len(h.violations) != test.want {
				t.Errorf("violations: %q, want %d", h.violations, test.want)
			}
		})
	}
}
