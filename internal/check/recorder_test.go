package check

import (
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestRecorder has one client do one of each, in virtual time.
func TestRecorder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRecorder()
		sender, poller := r.Sender(true), r.Poller()
		first, second, third := sender.Send(0), sender.Send(0), sender.Send(1)
		time.Sleep(time.Microsecond)
		sender.Acked(first, 0)
		sender.Failed(third)
		poller.Begin(0, 0)
		poller.Poll(r.Now(), 1, 0, []Record{{first, 0}})
		poller.Poll(r.Now(), 1, 0, nil)
		poller.Revoke(0)
		poller.Poll(r.Now(), NoAgent, 0, []Record{{first, 0}})
		r.End(End{Agent: 1, Offset: 1, Invoked: r.Now()})
		r.Commit(Commit{Group: "g", Offset: 1, Outcome: Acked, Invoked: r.Now()})
		r.Position(Position{Group: "g", Offset: 1, Invoked: r.Now()})
		r.Log(Log{Agent: 1, End: 1, Invoked: r.Now(), Records: []Record{{first, 0}}})

		want := History{
			Producers: []Producer{{Idempotent: true, Sends: []Send{
				{Outcome: Acked, Offset: 0, Invoked: 1, Completed: 1000},
				{Offset: NoOffset, Invoked: 2},
				{Partition: 1, Outcome: Failed, Offset: NoOffset, Invoked: 3, Completed: 1001},
			}}},
			Consumers: []Consumer{{Sessions: []Session{
				{From: 0, Polls: []Poll{
					{Agent: 1, Invoked: 1002, Completed: 1003, Records: []Record{{first, 0}}},
					{Agent: 1, Invoked: 1004, Completed: 1005},
				}},
				{From: NoOffset, Polls: []Poll{{Agent: NoAgent, Invoked: 1006, Completed: 1007, Records: []Record{{first, 0}}}}},
			}}},
			Ends:      []End{{Agent: 1, Offset: 1, Invoked: 1008, Completed: 1009}},
			Commits:   []Commit{{Group: "g", Offset: 1, Outcome: Acked, Invoked: 1010, Completed: 1011}},
			Positions: []Position{{Group: "g", Offset: 1, Invoked: 1012, Completed: 1013}},
			Logs:      []Log{{Agent: 1, End: 1, Invoked: 1014, Completed: 1015, Records: []Record{{first, 0}}}},
		}
		if got := r.History(); !reflect.DeepEqual(got, want) {
			t.Errorf("recorded %+v, want %+v", got, want)
		}
		if second != (ID{0, 1}) {
			t.Errorf("the second record is %v", second)
		}
	})
}

// TestRecorderIsConcurrent has clients write to a log behind a lock: whatever they record of it is right.
func TestRecorderIsConcurrent(t *testing.T) {
	const clients, each = 8, 500
	r := NewRecorder()
	var mu sync.Mutex
	var log []Record
	var done sync.WaitGroup
	for range clients {
		sender, poller := r.Sender(true), r.Poller()
		poller.Begin(0, 0)
		position := 0
		done.Go(func() {
			for range each {
				id := sender.Send(0)
				mu.Lock()
				offset := int64(len(log))
				log = append(log, Record{id, offset})
				mu.Unlock()
				sender.Acked(id, offset)

				invoked := r.Now()
				mu.Lock()
				read := log[position:len(log):len(log)]
				mu.Unlock()
				poller.Poll(invoked, NoAgent, 0, read)
				position += len(read)
				r.End(End{Source: Listed, Agent: NoAgent, Offset: int64(position), Invoked: invoked})
			}
		})
	}
	done.Wait()
	r.Log(Log{End: clients * each, Invoked: r.Now(), Records: log})
	if anomalies := Check(r.History(), Options{Staleness: 1}); len(anomalies) > 0 {
		t.Errorf("%d anomalies, such as: %v", len(anomalies), anomalies[0])
	}
}
