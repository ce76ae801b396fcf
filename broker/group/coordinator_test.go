package group

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/twmb/franz-go/pkg/kerr"
	"go.uber.org/goleak"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestGroupForms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := startAgent(t, newFakeStore(), "a", nil)
		first, second := a.Join(joinRequest("g", "")), a.Join(joinRequest("g", ""))
		leader, follower := wait(t, first), wait(t, second)
		if leader.LeaderID != leader.MemberID || len(leader.Members) != 2 || len(follower.Members) != 0 {
			t.Fatalf("leader %+v, follower %+v", leader, follower)
		}
		lm := Membership{Group: "g", MemberID: leader.MemberID, Generation: 1}
		fm := Membership{Group: "g", MemberID: follower.MemberID, Generation: 1}
		waits := a.Sync(SyncRequest{Membership: fm})
		synctest.Wait()
		if !undecided(waits) {
			t.Fatal("the follower's sync did not wait for the leader's assignment")
		}
		wait(t, a.Sync(SyncRequest{Membership: lm, Assignments: []Assignment{{fm.MemberID, []byte("x")}}}))
		if got := wait(t, waits); string(got.Assignment) != "x" {
			t.Errorf("assigned %q", got.Assignment)
		}
		if d := wait(t, a.Describe("g")); d.State != Stable || len(d.Members) != 2 {
			t.Errorf("described as %+v", d)
		}
		noError(t, testutil.GatherAndCompare(a.reg, strings.NewReader(`
# HELP streamhouse_group_groups Groups that this agent coordinates and has in memory, by state.
# TYPE streamhouse_group_groups gauge
streamhouse_group_groups{state="Assigning"} 0
streamhouse_group_groups{state="CompletingRebalance"} 0
streamhouse_group_groups{state="Empty"} 0
streamhouse_group_groups{state="PreparingRebalance"} 0
streamhouse_group_groups{state="Reconciling"} 0
streamhouse_group_groups{state="Stable"} 1
# HELP streamhouse_group_members Members of the groups that this agent coordinates.
# TYPE streamhouse_group_members gauge
streamhouse_group_members 2
# HELP streamhouse_group_rebalances_total Generations that became stable.
# TYPE streamhouse_group_rebalances_total counter
streamhouse_group_rebalances_total 1
`), "streamhouse_group_groups", "streamhouse_group_members", "streamhouse_group_rebalances_total"))
	})
}

func TestMemberIsRemovedWhenItsSessionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeStore()
		a := startAgent(t, f, "a", nil)
		m := consumer(t, a, "g")
		f.statements()
		for range 100 { // heartbeats keep it, and cost the store nothing
			time.Sleep(9 * time.Second)
			wait(t, a.Heartbeat(HeartbeatRequest{m}))
		}
		if got := f.statements(); len(got) != 0 {
			t.Errorf("heartbeats made the statements %v", got)
		}
		time.Sleep(10*time.Second + time.Millisecond)
		refusal(t, a.Heartbeat(HeartbeatRequest{m}), kerr.UnknownMemberID)
		if d := wait(t, a.Describe("g")); d.State != Empty {
			t.Errorf("group is %v", d.State)
		}
	})
}

func TestInvalidRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := startAgent(t, newFakeStore(), "a", nil)
		short, long := joinRequest("g", ""), joinRequest("g", "")
		short.SessionTimeout, long.SessionTimeout = 5*time.Second, time.Hour
		refusal(t, a.Join(short), kerr.InvalidSessionTimeout)
		refusal(t, a.Join(long), kerr.InvalidSessionTimeout)
		refusal(t, a.Join(joinRequest("", "")), kerr.InvalidGroupID)
		refusal(t, a.Sync(SyncRequest{}), kerr.InvalidGroupID)
		refusal(t, a.Heartbeat(HeartbeatRequest{}), kerr.InvalidGroupID)
		refusal(t, a.Leave(LeaveRequest{}), kerr.InvalidGroupID)
		for _, id := range []string{"a\x00b", "a\xffb", strings.Repeat("a", maxGroupID+1)} {
			refusal(t, a.Join(joinRequest(id, "")), kerr.InvalidGroupID)
			refusal(t, a.Commit(CommitRequest{Membership: Membership{Group: id, Generation: -1}}), kerr.InvalidGroupID)
			refusal(t, a.Fetch(FetchRequest{Group: id}), kerr.InvalidGroupID)
			refusal(t, a.DeleteOffsets(DeleteOffsetsRequest{Group: id}), kerr.InvalidGroupID)
			refusal(t, a.Delete(id), kerr.InvalidGroupID)
			refusal(t, a.Describe(id), kerr.InvalidGroupID)
		}
	})
}

// While one commit is under way, those that come wait for one statement, and so do
// the fetches, which read a group once.
func TestCommitsOfAllGroupsShareAStatement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeStore()
		a := startAgent(t, f, "a", nil)
		groups := sameShard(20)
		wait(t, a.Fetch(FetchRequest{Group: groups[0]})) // acquires the shard
		f.statements()
		open := make(chan struct{})
		f.setFault(func(context.Context, string) fault { <-open; return fault{} })
		var pending []Pending[[]error]
		for i, g := range groups {
			pending = append(pending, a.Commit(commitRequest(simple(g), int64(i))))
			synctest.Wait() // the first is with the store now
		}
		last := a.Fetch(FetchRequest{Group: groups[19]})
		others := []Pending[[]metadata.CommittedOffset]{a.Fetch(FetchRequest{Group: groups[18]}), a.Fetch(FetchRequest{Group: groups[18]})}
		close(open)
		for _, p := range pending {
			if errs := wait(t, p); errs[0] != nil {
				t.Error(errs[0])
			}
		}
		if got := wait(t, last); len(got) != 1 || got[0].Offset != 19 {
			t.Errorf("fetched %v: it must see the commit that was begun before", got)
		}
		for _, p := range others {
			if got := wait(t, p); len(got) != 1 || got[0].Offset != 18 {
				t.Errorf("fetched %v", got)
			}
		}
		want := []string{"commit 1, save 1", "commit 19, save 19", "fetch 2"}
		if got := f.statements(); !slices.Equal(got, want) {
			t.Errorf("statements %v, want %v", got, want)
		}
	})
}

func TestChangesReachTheStoreInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeStore()
		a := startAgent(t, f, "a", nil)
		wait(t, a.Fetch(FetchRequest{Group: "g"})) // acquires the shard
		f.statements()
		open := make(chan struct{})
		f.setFault(func(context.Context, string) fault { <-open; return fault{} })
		first := a.Commit(commitRequest(simple("g"), 1))
		synctest.Wait()
		second, del, third := a.Commit(commitRequest(simple("g"), 2)), a.Delete("g"), a.Commit(commitRequest(simple("g"), 3))
		close(open)
		wait(t, first)
		wait(t, second)
		wait(t, del)
		wait(t, third)
		want := []string{"commit 1, save 1", "commit 1", "delete 1, commit 1, save 1"}
		if got := f.statements(); !slices.Equal(got, want) {
			t.Errorf("statements %v, want %v", got, want)
		}
		if got := wait(t, a.Fetch(FetchRequest{Group: "g"})); len(got) != 1 || got[0].Offset != 3 {
			t.Errorf("fetched %v", got)
		}
	})
}

func TestAnotherAgentCoordinates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeStore()
		a, b := startAgent(t, f, "a", nil), startAgent(t, f, "b", nil)
		consumer(t, a, "g")
		refusal(t, b.Join(joinRequest("g", "")), kerr.NotCoordinator)
		refusal(t, b.Heartbeat(HeartbeatRequest{Membership{Group: "g"}}), kerr.NotCoordinator)
		refusal(t, b.Fetch(FetchRequest{Group: "g"}), kerr.NotCoordinator)
	})
}

// A new coordinator knows the members and the offsets; nobody joins again.
func TestTakeOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeStore()
		a, b := startAgent(t, f, "a", nil), startAgent(t, f, "b", nil)
		m := consumer(t, a, "g")
		wait(t, a.Commit(commitRequest(m, 42)))
		waits := a.Join(joinRequest("h", ""))
		synctest.Wait()

		noError(t, a.manager.ReleaseAll(t.Context()))
		refusal(t, waits, kerr.NotCoordinator)
		wait(t, b.Heartbeat(HeartbeatRequest{m}))
		if s := wait(t, b.Sync(SyncRequest{Membership: m})); string(s.Assignment) != "all" {
			t.Errorf("assigned %q", s.Assignment)
		}
		wait(t, b.Commit(commitRequest(m, 43)))
		if d := wait(t, b.Describe("g")); d.State != Stable || len(d.Members) != 1 {
			t.Errorf("described as %+v", d)
		}
		if got := wait(t, b.Fetch(FetchRequest{Group: "g"})); len(got) != 1 || got[0].Offset != 43 {
			t.Errorf("fetched %v", got)
		}
		synctest.Wait()
		noError(t, testutil.GatherAndCompare(a.reg, strings.NewReader(`
# HELP streamhouse_group_members Members of the groups that this agent coordinates.
# TYPE streamhouse_group_members gauge
streamhouse_group_members 0
`), "streamhouse_group_members"))
		time.Sleep(11 * time.Second) // its session began with its new coordinator
		refusal(t, b.Heartbeat(HeartbeatRequest{m}), kerr.UnknownMemberID)
	})
}

// Nobody is told of a generation that is not stored.
func TestAnswersWaitForTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeStore()
		a := startAgent(t, f, "a", nil)
		m := consumer(t, a, "g")
		open := make(chan struct{})
		f.setFault(func(_ context.Context, op string) fault {
			if op == "write" {
				<-open
			}
			return fault{}
		})
		join := a.Join(joinRequest("g", m.MemberID)) // the leader: the next generation begins
		synctest.Wait()
		heartbeat, describe := a.Heartbeat(HeartbeatRequest{m}), a.Describe("g")
		other := a.Heartbeat(HeartbeatRequest{Membership{Group: "h", MemberID: "x"}})
		synctest.Wait()
		if !undecided(join) || !undecided(heartbeat) || !undecided(describe) {
			t.Error("answered before the generation was stored")
		}
		refusal(t, other, kerr.UnknownMemberID)
		close(open)
		if j := wait(t, join); j.Generation != 2 {
			t.Errorf("generation %d", j.Generation)
		}
		refusal(t, heartbeat, kerr.IllegalGeneration)
		if d := wait(t, describe); d.State != CompletingRebalance {
			t.Errorf("described as %v", d.State)
		}
	})
}

// What can't be stored did not happen: the shard goes on with what is stored.
func TestRecordThatCanNotBeStored(t *testing.T) {
	for _, tc := range []struct {
		err  error
		code *kerr.Error
	}{
		{metadata.ErrUnavailable, kerr.CoordinatorNotAvailable},
		{errors.New("a fault"), kerr.CoordinatorNotAvailable},
		{metadata.ErrUnknownOutcome, kerr.NotCoordinator},
	} {
		t.Run(tc.err.Error(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeStore()
				a := startAgent(t, f, "a", nil)
				m := consumer(t, a, "g")
				f.setFault(func(_ context.Context, op string) fault {
					if op == "write" {
						return fault{err: tc.err}
					}
					return fault{}
				})
				refusal(t, a.Join(joinRequest("g", m.MemberID)), tc.code)
				f.setFault(nil)
				wait(t, a.Heartbeat(HeartbeatRequest{m})) // in the generation before
				if d := wait(t, a.Describe("g")); d.State != Stable {
					t.Errorf("described as %v", d.State)
				}
			})
		})
	}
}

// A store that is away for a while holds up the group that changes, and no other.
func TestRecordIsStoredWhenTheStoreIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeStore()
		a := startAgent(t, f, "a", nil)
		groups := sameShard(2)
		m, other := consumer(t, a, groups[0]), consumer(t, a, groups[1])
		f.setFault(func(context.Context, string) fault { return fault{err: metadata.ErrUnavailable} })
		join := a.Join(joinRequest(groups[0], m.MemberID))
		time.Sleep(a.cfg.StoreTimeout / 2)
		if !undecided(join) {
			t.Error("answered before the generation was stored")
		}
		wait(t, a.Heartbeat(HeartbeatRequest{other}))
		f.setFault(nil)
		if j := wait(t, join); j.Generation != 2 {
			t.Errorf("generation %d", j.Generation)
		}
	})
}

// The record of a coordinator that was replaced is refused, and its clients are
// sent on to the new one.
func TestFencedRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeStore()
		a, b := startAgent(t, f, "a", nil), startAgent(t, f, "b", nil)
		m := consumer(t, a, "g")
		f.takeOver(metadata.GroupShard(metadata.DefaultAgentGroup, "g"), "b")
		refusal(t, a.Join(joinRequest("g", m.MemberID)), kerr.NotCoordinator)
		refusal(t, a.Heartbeat(HeartbeatRequest{m}), kerr.NotCoordinator)
		wait(t, b.Heartbeat(HeartbeatRequest{m}))
	})
}

// A record whose outcome is unknown is stored in a new term, once.
func TestUnknownOutcomeOfARecord(t *testing.T) {
	for _, applied := range []bool{false, true} {
		t.Run(fmt.Sprintf("applied=%t", applied), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeStore()
				a, b := startAgent(t, f, "a", nil), startAgent(t, f, "b", nil)
				m := consumer(t, a, "g")
				faults := 1
				f.setFault(func(context.Context, string) fault {
					if faults--; faults < 0 {
						return fault{}
					}
					return fault{err: metadata.ErrUnknownOutcome, applied: applied}
				})
				j := wait(t, a.Join(joinRequest("g", m.MemberID)))
				m.Generation = j.Generation
				wait(t, a.Sync(SyncRequest{Membership: m}))
				noError(t, a.manager.ReleaseAll(t.Context()))
				wait(t, b.Heartbeat(HeartbeatRequest{m}))
			})
		})
	}
}

// A shard whose groups can't be read is not led.
func TestGroupsThatCanNotBeLoaded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeStore()
		a := startAgent(t, f, "a", nil)
		for _, record := range []string{"no JSON", `{"version":9,"type":"classic"}`, `{"version":1,"type":"odd"}`, `{"version":1,"type":"classic","state":"Odd"}`, `{"version":1,"type":"classic","state":"Stable"}`} {
			f.groups["g"] = storedRow{record: record}
			refusal(t, a.Heartbeat(HeartbeatRequest{Membership{Group: "g"}}), kerr.CoordinatorNotAvailable)
		}
		delete(f.groups, "g")
		f.setFault(func(context.Context, string) fault { return fault{err: metadata.ErrUnavailable} })
		refusal(t, a.Heartbeat(HeartbeatRequest{Membership{Group: "g"}}), kerr.CoordinatorNotAvailable)
		f.setFault(nil)
		consumer(t, a, "g")
	})
}

// Positions expire, and then their group; those of a topic that members subscribe
// to don't.
func TestOffsetsExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeStore()
		a := startAgent(t, f, "a", func(c *Config) { c.OffsetsRetention = time.Hour })
		wait(t, a.Commit(commitRequest(simple("g"), 1, 2)))
		time.Sleep(50 * time.Minute)
		wait(t, a.Commit(commitRequest(simple("g"), 3)))
		time.Sleep(30 * time.Minute)
		if got := wait(t, a.Fetch(FetchRequest{Group: "g"})); len(got) != 1 || got[0].Offset != 3 {
			t.Errorf("left %v", got)
		}
		wait(t, a.Describe("g"))
		time.Sleep(50 * time.Minute)
		refusal(t, a.Describe("g"), kerr.GroupIDNotFound)
		if len(f.groups) > 0 || len(f.offsets) > 0 {
			t.Errorf("left in the store: %v, %v", f.groups, f.offsets)
		}
	})
}

// A coordinator that was replaced without knowing it lets nothing pass.
func TestFencedCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeStore()
		a := startAgent(t, f, "a", nil)
		m := consumer(t, a, "g")
		wait(t, a.Commit(commitRequest(m, 1)))
		f.takeOver(metadata.GroupShard(metadata.DefaultAgentGroup, "g"), "b")
		wait(t, a.Heartbeat(HeartbeatRequest{m})) // it doesn't know
		refusal(t, a.Commit(commitRequest(m, 2)), kerr.NotCoordinator)
		refusal(t, a.Heartbeat(HeartbeatRequest{m}), kerr.NotCoordinator)
		if o := f.offsets["g"][lease.Key{}]; o.Offset != 1 {
			t.Errorf("offset %d was stored", o.Offset)
		}
	})
}

func TestLeaseThatIsNotRenewedIsNotUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeStore()
		a := startAgent(t, f, "a", nil)
		r := joinRequest("g", "")
		r.SessionTimeout, r.RebalanceTimeout = time.Minute, time.Minute
		wait(t, a.Join(r))
		waits := a.Join(r)
		f.takeOver(metadata.GroupShard(metadata.DefaultAgentGroup, "g"), "b")
		time.Sleep(23 * time.Second) // a renewal is refused
		refusal(t, waits, kerr.NotCoordinator)
		refusal(t, a.Fetch(FetchRequest{Group: "g"}), kerr.NotCoordinator)
	})
}

// An outcome that is unknown is resolved under a new term, in which the members
// are those of the old one. What lands late is fenced.
func TestUnknownOutcomeOfACommit(t *testing.T) {
	for _, applied := range []bool{false, true} {
		t.Run(fmt.Sprintf("applied=%t", applied), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeStore()
				a := startAgent(t, f, "a", nil)
				m := consumer(t, a, "g")
				wait(t, a.Commit(commitRequest(m, 1)))
				old := f.leases[metadata.GroupShard(metadata.DefaultAgentGroup, "g")].term
				faults := 1
				f.setFault(func(context.Context, string) fault {
					if faults--; faults < 0 {
						return fault{}
					}
					return fault{err: fmt.Errorf("connection lost: %w", metadata.ErrUnknownOutcome), applied: applied}
				})
				pending := a.Commit(commitRequest(m, 2))
				heartbeat := a.Heartbeat(HeartbeatRequest{m})
				wait(t, pending)
				wait(t, heartbeat)
				wait(t, a.Heartbeat(HeartbeatRequest{m}))
				wait(t, a.Commit(commitRequest(m, 3)))
				late := f.WriteGroups(t.Context(), "a", old, &metadata.GroupWrite{Commit: []metadata.OffsetCommit{{Group: "g", Offsets: commitRequest(m, 2).Offsets}}})
				if !errors.Is(late, metadata.ErrFenced) {
					t.Errorf("a late commit was answered %v", late)
				}
				if o := f.offsets["g"][lease.Key{}]; o.Offset != 3 {
					t.Errorf("offset %d is stored", o.Offset)
				}
			})
		})
	}
}

func TestOutcomeThatStaysUnknownEndsTheShard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeStore()
		a := startAgent(t, f, "a", nil)
		m := consumer(t, a, "g")
		f.statements()
		f.setFault(func(context.Context, string) fault { return fault{err: metadata.ErrUnknownOutcome} })
		refusal(t, a.Commit(commitRequest(m, 2)), kerr.NotCoordinator)
		if got := f.statements(); len(got) != changeAttempts {
			t.Errorf("%d attempts", len(got))
		}
		f.setFault(nil)
		wait(t, a.Heartbeat(HeartbeatRequest{m})) // a new term, with what is stored
	})
}

// A take-over between an unknown outcome and the next term costs the members.
func TestUnknownOutcomeWithATakeOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeStore()
		a := startAgent(t, f, "a", nil)
		m := consumer(t, a, "g")
		f.setFault(func(context.Context, string) fault {
			f.takeOver(metadata.GroupShard(metadata.DefaultAgentGroup, "g"), "b")
			return fault{err: metadata.ErrUnknownOutcome}
		})
		refusal(t, a.Commit(commitRequest(m, 2)), kerr.NotCoordinator)
		refusal(t, a.Heartbeat(HeartbeatRequest{m}), kerr.NotCoordinator)
	})
}

// What is uncertain is not written over what another coordinator has stored since.
func TestUnknownOutcomeAndAnotherCoordinator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeStore()
		a := startAgent(t, f, "a", nil)
		m := consumer(t, a, "g")
		wait(t, a.Commit(commitRequest(m, 1)))
		shard := metadata.GroupShard(metadata.DefaultAgentGroup, "g")
		f.setFault(func(ctx context.Context, _ string) fault {
			f.setFault(nil)
			f.takeOver(shard, "b")
			term := f.leases[shard].term
			noError(t, f.WriteGroups(ctx, "b", term, &metadata.GroupWrite{Commit: []metadata.OffsetCommit{{Group: "g", Offsets: commitRequest(m, 9).Offsets}}}))
			noError(t, f.Release(ctx, "b", []lease.Term{term}))
			return fault{err: metadata.ErrUnknownOutcome}
		})
		refusal(t, a.Commit(commitRequest(m, 2)), kerr.NotCoordinator)
		if got := wait(t, a.Fetch(FetchRequest{Group: "g"})); len(got) != 1 || got[0].Offset != 9 {
			t.Errorf("fetched %v", got)
		}
		wait(t, a.Heartbeat(HeartbeatRequest{m})) // of the groups as they are stored
	})
}

func TestStoreIsUnavailable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeStore()
		a := startAgent(t, f, "a", nil)
		m := consumer(t, a, "g")
		f.setFault(func(context.Context, string) fault { return fault{err: metadata.ErrUnavailable} })
		refusal(t, a.Commit(commitRequest(m, 1)), kerr.CoordinatorNotAvailable)
		refusal(t, a.Fetch(FetchRequest{Group: "g"}), kerr.CoordinatorNotAvailable)
		refusal(t, a.Describe("another shard's"), kerr.CoordinatorNotAvailable)
		everywhere := func(lease.Key) bool { return true }
		if _, err := a.List(t.Context(), ListFilter{Shards: everywhere}); !errors.Is(err, kerr.CoordinatorNotAvailable) {
			t.Errorf("listed with %v", err)
		}
		wait(t, a.Heartbeat(HeartbeatRequest{m})) // members stay
		f.setFault(nil)
		wait(t, a.Commit(commitRequest(m, 2)))
	})
}

// A store that does not answer holds nothing up for longer than its timeout.
func TestStoreHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeStore()
		a := startAgent(t, f, "a", nil)
		wait(t, a.Fetch(FetchRequest{Group: "g"})) // acquires the shard
		f.setFault(func(ctx context.Context, _ string) fault {
			<-ctx.Done()
			return fault{err: fmt.Errorf("%w: %w", metadata.ErrUnavailable, ctx.Err())}
		})
		start := time.Now()
		refusal(t, a.Fetch(FetchRequest{Group: "g"}), kerr.CoordinatorNotAvailable)
		if took := time.Since(start); took != a.cfg.StoreTimeout {
			t.Errorf("took %v", took)
		}
	})
}

func TestWaitingRequestsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeStore()
		a := startAgent(t, f, "a", func(c *Config) { c.MaxWaiting = 2 })
		wait(t, a.Commit(commitRequest(simple("g"), 1)))
		open := make(chan struct{})
		f.setFault(func(context.Context, string) fault { <-open; return fault{} })
		var pending []Pending[[]error]
		for i := range 4 {
			pending = append(pending, a.Commit(commitRequest(simple("g"), int64(i))))
			synctest.Wait()
		}
		refusal(t, pending[3], kerr.CoordinatorNotAvailable) // one is with the store, two wait
		close(open)
		for _, p := range pending[:3] {
			wait(t, p)
		}

		late := NewCoordinator(f, a.manager, noTopics, "a", a.cfg, a.metrics, a.log) // does not run: nobody acquires
		for i := range 3 {
			p := late.Fetch(FetchRequest{Group: "g"})
			if i < 2 != undecided(p) {
				t.Errorf("request %d waits: %t", i, undecided(p))
			}
		}
	})
}

func TestEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeStore()
		a := startAgent(t, f, "a", nil)
		consumer(t, a, "g")
		join := a.Join(joinRequest("g", ""))
		f.setFault(func(ctx context.Context, _ string) fault {
			<-ctx.Done()
			return fault{err: metadata.ErrUnknownOutcome}
		})
		under, queued := a.Fetch(FetchRequest{Group: "g"}), a.Commit(commitRequest(simple("h"), 1))
		synctest.Wait()
		a.end()
		refusal(t, join, kerr.CoordinatorNotAvailable)
		refusal(t, under, kerr.CoordinatorNotAvailable)
		refusal(t, queued, kerr.CoordinatorNotAvailable)
		refusal(t, a.Join(joinRequest("g", "")), kerr.CoordinatorNotAvailable)
	})
}

func TestWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := startAgent(t, newFakeStore(), "a", nil)
		consumer(t, a, "g")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := a.Join(joinRequest("g", "")).Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

func TestDescribeAndDeleteOfGroupsThatHaveOnlyOffsets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeStore()
		a := startAgent(t, f, "a", nil)
		refusal(t, a.Describe("g"), kerr.GroupIDNotFound)
		refusal(t, a.Delete("g"), kerr.GroupIDNotFound)
		refusal(t, a.DeleteOffsets(DeleteOffsetsRequest{Group: "g", Partitions: []Partition{{Topic: "t"}}}), kerr.GroupIDNotFound)
		wait(t, a.Commit(commitRequest(simple("g"), 1, 2)))
		if d := wait(t, a.Describe("g")); d.State != Empty {
			t.Errorf("group is %v", d.State)
		}
		wait(t, a.DeleteOffsets(DeleteOffsetsRequest{Group: "g", Partitions: []Partition{{Topic: "t"}}}))
		if got := wait(t, a.Fetch(FetchRequest{Group: "g"})); len(got) != 1 || got[0].Partition != 1 {
			t.Errorf("left %v", got)
		}
		wait(t, a.Delete("g"))
		refusal(t, a.Describe("g"), kerr.GroupIDNotFound)
	})
}

func TestList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeStore()
		a := startAgent(t, f, "a", nil)
		consumer(t, a, "b")
		wait(t, a.Commit(commitRequest(simple("a"), 1)))
		wait(t, a.Commit(commitRequest(simple("c"), 1)))
		f.groups["d"] = storedRow{} // of a shard that nobody leads
		everywhere := func(lease.Key) bool { return true }
		for _, tc := range []struct {
			filter ListFilter
			want   string
		}{
			{ListFilter{Shards: func(k lease.Key) bool { return k != metadata.GroupShard(metadata.DefaultAgentGroup, "d") }}, "a Empty, b Stable consumer, c Empty"},
			{ListFilter{Shards: everywhere}, "a Empty, b Stable consumer, c Empty, d Empty"},
			{ListFilter{Shards: everywhere, States: []string{" stable"}}, "b Stable consumer"},
			{ListFilter{Shards: everywhere, States: []string{"EMPTY", "Dead"}}, "a Empty, c Empty, d Empty"},
			{ListFilter{Shards: everywhere, States: []string{"no such"}}, ""},
			{ListFilter{Shards: everywhere, Types: []string{"consumer"}}, ""},
			{ListFilter{Shards: everywhere, Types: []string{"Classic"}}, "a Empty, b Stable consumer, c Empty, d Empty"},
		} {
			groups, err := a.List(t.Context(), tc.filter)
			noError(t, err)
			var got []string
			for _, g := range groups {
				got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s %s", g.Group, g.State, g.ProtocolType)))
			}
			if s := strings.Join(got, ", "); s != tc.want {
				t.Errorf("%+v: %q, want %q", tc.filter, s, tc.want)
			}
		}
	})
}
