package compattests

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/streamhouse/streamhouse/compat-tests/harness"
)

// unreachedGoal is how long partitions may be without an acknowledgement when clients and peers lose their way to an
// agent that lives.
const unreachedGoal = 10 * time.Second

// TestAgentThatNobodyReaches cuts one of three agents off from clients and from the other agents, silently, and leaves
// it the database and the bucket. It gives up what it leads, and others acknowledge. COMPAT_ALL=1 compares how long that
// takes with the goal, and sees the agent come back when it is reached again.
func TestAgentThatNobodyReaches(t *testing.T) {
	t.Parallel()
	agents := harness.LinkedCluster(t, harness.FastStores(t), 3)
	ctx := deadline(t, 5*time.Minute)
	all, warmUp := slow(t), time.Second
	if all {
		warmUp = failoverWarmUp
		loseAllWays(ctx, t, agents)
	}
	l := startSteadyLoad(t, addresses(agents), "unreached", kgo.ProduceRequestTimeout(time.Second), kgo.RequestTimeoutOverhead(time.Second))
	l.run(warmUp)
	l.runUntil(ctx, t, "all partitions are acknowledged", l.ackedSince(time.Time{}))
	victim := agents[0]
	if leads(ctx, t, l.client, victim) == 0 {
		t.Fatal("the agent leads nothing before it is cut off")
	}

	victim.Kafka.Cut()
	hit := l.forget()
	l.runUntil(ctx, t, "the agent gives up", func() bool { return !ready(ctx, t, victim.Agent) })
	gaveUp := time.Now()
	l.runUntil(ctx, t, "others acknowledge all partitions", l.ackedSince(gaveUp))
	l.runUntil(ctx, t, "the agent leads nothing", func() bool { return leads(ctx, t, l.client, victim) == 0 })
	if all {
		victim.Kafka.Heal()
		l.runUntil(ctx, t, "the agent is back", func() bool {
			return ready(ctx, t, victim.Agent) && leads(ctx, t, l.client, victim) >= failoverPartitions/10
		})
		l.runUntil(ctx, t, "all partitions are acknowledged", l.ackedSince(time.Now()))
		t.Logf("the agent leads %d partitions again %s after it gave up",
			leads(ctx, t, l.client, victim), time.Since(gaveUp).Round(time.Second))
	}
	longest, partition := l.finish(t)
	t.Logf("the agent gave up after %s; %s without an acknowledgement on partition %d, until %s after the cut",
		gaveUp.Sub(hit).Round(time.Millisecond), longest.Round(time.Millisecond), partition,
		l.ended[partition].Sub(hit).Round(time.Millisecond))
	if all && longest > unreachedGoal {
		t.Errorf("the goal is %s", unreachedGoal)
	}
}

// loseAllWays cuts all agents off, for long enough that each would have given up. None does: that would help nobody.
func loseAllWays(ctx context.Context, t *testing.T, agents []*harness.LinkedAgent) {
	t.Helper()
	for _, a := range agents {
		a.Kafka.Cut()
	}
	for _, a := range agents {
		eventually(ctx, t, func() error {
			if n := strings.Count(a.LogTail(), "a peer lives and can not be reached from here"); n < len(agents)-1 {
				return fmt.Errorf("agent %s has noticed of %d others that it does not reach them", a.ID(), n)
			}
			return nil
		})
	}
	for _, a := range agents {
		if !ready(ctx, t, a.Agent) {
			t.Error("an agent gave up, and no other is better off")
		}
		a.Heal()
	}
}

// ackedSince says whether every partition was acknowledged after an instant.
func (l *steadyLoad) ackedSince(instant time.Time) func() bool {
	return func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, at := range l.acked {
			if !at.After(instant) {
				return false
			}
		}
		return true
	}
}

// runUntil produces until something is so.
func (l *steadyLoad) runUntil(ctx context.Context, t *testing.T, what string, so func() bool) {
	t.Helper()
	for !so() {
		l.run(100 * time.Millisecond)
		if ctx.Err() != nil {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// ready says whether an agent is fit to serve, by its own word.
func ready(ctx context.Context, t *testing.T, a *harness.Agent) bool {
	t.Helper()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+a.AdminAddress()+"/readyz", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Close = true // no idle connection stays behind
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// leads counts the partitions that an agent leads, by the word of whom the client asks.
func leads(ctx context.Context, t *testing.T, client *kgo.Client, a *harness.LinkedAgent) (n int) {
	t.Helper()
	metadata, err := kadm.NewClient(client).Metadata(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range metadata.Brokers {
		if a.Address() != net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port))) {
			continue
		}
		for _, topic := range metadata.Topics {
			for _, p := range topic.Partitions {
				if p.Leader == b.NodeID {
					n++
				}
			}
		}
	}
	return n
}
