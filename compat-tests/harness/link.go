package harness

import (
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/internal/testdb"
)

// Link is the way of all connections to one server, with faults that hold until Heal, for connections that exist and
// for later ones. The zero Link is not usable; a link ends with its test. Methods are safe for concurrent use.
type Link struct{ proxy *testdb.Proxy }

// newLink makes a link to a server, which is named by its host:port or by a URL.
func newLink(t testing.TB, server string) Link {
	t.Helper()
	return newLinkWith(t, server, testdb.ProxyOptions{})
}

func newLinkWith(t testing.TB, server string, options testdb.ProxyOptions) Link {
	t.Helper()
	return Link{testdb.NewProxyWith(t, server, options)}
}

// Address is host:port of the link's near end.
func (l Link) Address() string { return l.proxy.Addr() }

// Cut is a silent partition: connections stay and carry nothing, not even their end. What was sent meanwhile arrives
// after Heal, like what TCP sends again.
func (l Link) Cut() { l.CutOneWay(testdb.ToServer); l.CutOneWay(testdb.ToClient) }

// CutOneWay is Cut for one direction.
func (l Link) CutOneWay(d testdb.Direction) { l.proxy.Pause(d) }

// Reset resets all connections, and new ones at once.
func (l Link) Reset() { l.proxy.Refuse(true); l.proxy.CloseAll() }

// Delay holds back each chunk of data for a while, in either direction.
func (l Link) Delay(delay time.Duration) {
	l.proxy.Delay(testdb.ToServer, delay)
	l.proxy.Delay(testdb.ToClient, delay)
}

// Heal ends all faults. Connections that were reset stay so.
func (l Link) Heal() {
	l.proxy.Refuse(false)
	l.Delay(0)
	l.proxy.Resume(testdb.ToServer)
	l.proxy.Resume(testdb.ToClient)
}

// DatabaseLink is the way to PostgreSQL.
type DatabaseLink struct{ Link }

// LoseAnswer resets the connection of the next statement that is executed, instead of its answer: it was committed,
// and the client cannot know. The channel is closed when that has happened; Heal does not call it off.
func (l DatabaseLink) LoseAnswer() <-chan struct{} {
	return l.proxy.CutReplyTo(testdb.PostgresExecutes, testdb.PostgresReady)
}
