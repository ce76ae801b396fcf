package broker

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/fetch"
	"github.com/streamhouse/streamhouse/lease"
)

// departure is an agent's way out of service, in which it sends its clients on.
type departure struct {
	begun context.Context // ended by Leave
	begin context.CancelFunc
	asked atomic.Int64 // ns since 1970 at which work was last asked for
}

func newDeparture() *departure {
	d := new(departure)
	d.begun, d.begin = context.WithCancel(context.Background())
	return d
}

// Leave has fetches refused from now on, as produces and requests of groups are
// once the leases are gone, with the agents that lead now: long polls at once.
func (b *Broker) Leave() { b.departure.begin() }

// AwaitMoved returns when all members of groups know that they have moved, and
// nothing was asked for quiet of what other agents are to be asked; or when ctx ends.
func (b *Broker) AwaitMoved(ctx context.Context, quiet time.Duration) {
	b.members.await(ctx)
	b.departure.note() // who was just told looks around
	timer := time.NewTimer(quiet)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		left := quiet - time.Since(time.Unix(0, b.departure.asked.Load()))
		if left <= 0 {
			return
		}
		timer.Reset(left)
	}
}

// note takes note of a request that other agents are to be asked.
func (d *departure) note() {
	if d.leaving() {
		d.asked.Store(time.Now().UnixNano())
	}
}

func (d *departure) leaving() bool { return d.begun.Err() != nil }

// read fetches, unless the agent leaves or begins to: then done is false.
func (d *departure) read(ctx context.Context, r *fetch.Reader, reqs []fetch.Request, o fetch.Options) (results []fetch.Result, done bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(d.begun, cancel)()
	results = r.Fetch(ctx, reqs, o)
	return results, !d.leaving()
}

// fetchHints name the leaders in a fetch's answer (KIP-951).
type fetchHints struct {
	b       *Broker
	ctx     context.Context
	version int16        // of the fetch
	zone    string       // the client's
	hints   *leaderHints // nil until one is wanted
}

// addressedHints is the first version of Fetch in which a leader is named with its
// address. There is a place for the name since v12, but it is a follower's: kafka-python
// takes a leader from there that it can not reach, and is stuck.
const addressedHints = 16

// sendOn refuses a partition, with its leader where that is another agent.
func (f *fetchHints) sendOn(a *kmsg.FetchResponseTopicPartition, k lease.Key, since int32) bool {
	if f.hints == nil {
		f.hints = f.b.leaderHints(f.ctx, f.zone)
	}
	l, ok := f.hints.since(k, since)
	if ok {
		a.ErrorCode = kerr.NotLeaderForPartition.Code
		if f.version >= addressedHints {
			a.CurrentLeader.LeaderID, a.CurrentLeader.LeaderEpoch = l.node, l.epoch
		}
	}
	return ok
}

// fill adds the agents that were named.
func (f *fetchHints) fill(resp *kmsg.FetchResponse) {
	if f.hints == nil || f.version < addressedHints {
		return
	}
	for _, a := range f.hints.named() {
		n := kmsg.NewFetchResponseBroker()
		n.NodeID, n.Host, n.Port, n.Rack = a.NodeID, a.Host, a.Port, rack(a.Zone)
		resp.Brokers = append(resp.Brokers, n)
	}
}
