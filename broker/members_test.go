package broker

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// An agent that ends waits for the members that it coordinates, until each was told
// that it has moved, or has gone, or should have asked by then.
func TestAwaitMembers(t *testing.T) {
	a, b := memberRef{"g", "a"}, memberRef{"g", "b"}
	for _, test := range []struct {
		name string
		then func(m *members, closeFirst, closeSecond func())
		want time.Duration
	}{
		{"nothing happens", func(*members, func(), func()) {}, memberReturns},
		{"all are told", func(m *members, _, _ func()) { m.sentOn(a); m.sentOn(b) }, 0},
		{"one is told", func(m *members, _, _ func()) { m.sentOn(a) }, memberReturns},
		{"one is told, the other one's connection ends", func(m *members, _, closeSecond func()) { m.sentOn(a); closeSecond() }, 0},
		{"a connection ends that a member has left before", func(m *members, closeFirst, _ func()) { m.sentOn(b); closeFirst() }, memberReturns},
		{"nobody asks", func(m *members, _, _ func()) {
			m.sentOn(a)
			m.sentOn(b)
			m.served(context.Background(), memberRef{"g", ""})
		}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				first, closeFirst := context.WithCancel(t.Context())
				second, closeSecond := context.WithCancel(t.Context())
				defer closeFirst()
				defer closeSecond()
				m := new(members)
				m.served(first, a)
				m.served(second, a)
				m.served(second, b)
				begun := time.Now()
				done := make(chan struct{})
				go func() { defer close(done); m.await(t.Context()) }()
				synctest.Wait()
				test.then(m, closeFirst, closeSecond)
				<-done
				if waited := time.Since(begun); waited != test.want {
					t.Errorf("waited %s, want %s", waited, test.want)
				}
			})
		})
	}
}
