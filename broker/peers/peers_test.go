package peers_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/twmb/franz-go/pkg/kerr"
	"go.uber.org/goleak"

	"github.com/streamhouse/streamhouse/broker/peers"
	"github.com/streamhouse/streamhouse/metadata"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// peer is an agent that answers probes as a test wants.
type peer struct {
	listener net.Listener
	probed   chan struct{} // has an element after an answer

	mu    sync.Mutex
	code  int16
	mute  bool
	asker string // the client id of the last question
	conns []net.Conn
}

func newPeer(t *testing.T) *peer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{listener: l, probed: make(chan struct{}, 1)}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			p.conns = append(p.conns, conn)
			p.mu.Unlock()
			serving.Go(func() { p.serve(conn) })
		}
	})
	t.Cleanup(func() { p.die(); serving.Wait() })
	return p
}

// serve answers requests until the connection ends.
func (p *peer) serve(conn net.Conn) {
	defer conn.Close()
	for {
		var size [4]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(size[:]))
		if _, err := io.ReadFull(conn, body); err != nil {
			return
		}
		p.mu.Lock()
		code, mute := p.code, p.mute
		p.asker = string(body[10:][:binary.BigEndian.Uint16(body[8:])]) // its client id
		p.mu.Unlock()
		if mute {
			continue
		}
		reply := binary.BigEndian.AppendUint32(nil, 10)
		reply = append(reply, body[4:8]...) // the correlation id
		reply = binary.BigEndian.AppendUint16(reply, uint16(code))
		if _, err := conn.Write(append(reply, 0, 0, 0, 0)); err != nil {
			return
		}
		select {
		case p.probed <- struct{}{}:
		default:
		}
	}
}

// die ends the listener and all connections.
func (p *peer) die() {
	_ = p.listener.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
}

func (p *peer) answer(code int16, mute bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.code, p.mute = code, mute
}

// register is a store that decides as a test wants, and the view of the cluster.
type register struct {
	mu         sync.Mutex
	agents     []metadata.Agent
	verdict    metadata.Burial // of burials, from the challenge on if afterwards
	afterwards bool
	challenged bool
	failures   int // so many burials fail after a challenge
	challenges int
	counted    []int // challenges before each burial that takes silence for evidence
	asked      int
	buried     chan metadata.Agent // who is not listed any more
	doubted    chan struct{}       // has an element after a challenge
	slow       chan struct{}       // if not nil, two elements are taken before each burial
	reports    chan metadata.Report
	warned     warnings
	watcher    *peers.Watcher
}

func (r *register) Report(_ context.Context, report metadata.Report) error {
	r.reports <- report
	return nil
}

func (r *register) Challenge(context.Context, string, uuid.UUID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.challenged = true
	r.challenges++
	select {
	case r.doubted <- struct{}{}:
	default:
	}
	return nil
}

func (r *register) Bury(_ context.Context, id string, session uuid.UUID, patience time.Duration) (metadata.Burial, error) {
	if r.slow != nil {
		<-r.slow
		<-r.slow
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked++
	if r.challenged && r.failures > 0 {
		r.failures--
		return metadata.NotBuried, metadata.ErrUnavailable
	}
	if silence := patience < time.Hour; silence {
		r.counted = append(r.counted, r.challenges)
	} else if r.verdict == metadata.BuriedMute {
		return metadata.NotBuried, nil
	}
	if r.verdict == metadata.NotBuried || r.afterwards && !r.challenged {
		return metadata.NotBuried, nil
	}
	i := slices.IndexFunc(r.agents, func(a metadata.Agent) bool { return a.ID == id && a.Session == session })
	if i < 0 {
		return metadata.EndedBefore, nil
	}
	dead := r.agents[i]
	r.agents = slices.Delete(slices.Clone(r.agents), i, i+1)
	r.buried <- dead
	return r.verdict, nil
}

// warnings has an element after a warning was logged.
type warnings chan struct{}

func (w warnings) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte("level=WARN")) {
		select {
		case w <- struct{}{}:
		default:
		}
	}
	return len(line), nil
}

func (r *register) ID() string { return "cluster" }

func (r *register) Agents() []metadata.Agent {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.agents
}

func (r *register) Refresh(context.Context) error { return nil }

// watch has agent 1 watch p, which is agent 2, until the test ends.
func watch(t *testing.T, p *peer, r *register) *prometheus.Registry {
	t.Helper()
	addr := p.listener.Addr().(*net.TCPAddr)
	r.buried, r.doubted = make(chan metadata.Agent, 1), make(chan struct{}, 1)
	r.reports, r.warned = make(chan metadata.Report, 100), make(warnings, 1)
	r.agents = []metadata.Agent{
		{ID: "self", NodeID: 1, Session: uuid.New(), Zone: "z"},
		{ID: "peer", NodeID: 2, Session: uuid.New(), Host: addr.IP.String(), Port: int32(addr.Port)},
	}
	reg := prometheus.NewRegistry()
	cfg := peers.DefaultConfig()
	cfg.Interval, cfg.Timeout, cfg.Patience = 10*time.Millisecond, 100*time.Millisecond, 200*time.Millisecond
	w := peers.New(cfg, r.agents[0], r, r, peers.NewMetrics(reg), slog.New(slog.NewTextHandler(io.MultiWriter(t.Output(), r.warned), nil)))
	r.watcher = w
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run returned %v", err)
		}
	})
	for range 3 { // several on one connection
		<-p.probed
	}
	return reg
}

func count(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			sum := 0.0
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue()
			}
			return sum
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func TestAPeerThatEndsIsBuriedOnTheStoresEvidence(t *testing.T) {
	p, r := newPeer(t), &register{verdict: metadata.BuriedGone}
	reg := watch(t, p, r)
	p.die()
	if dead := <-r.buried; dead.ID != "peer" {
		t.Errorf("buried %+v", dead)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	// Once: neither before the end nor after it.
	if r.asked != 1 || r.challenged || count(t, reg, "streamhouse_peers_challenges_total") > 0 {
		t.Errorf("asked %d times, challenged: %t", r.asked, r.challenged)
	}
}

// While the store can't be asked, a peer can't answer either: its silence counts
// from a challenge on that it could have answered.
func TestADoubtedPeerIsBuriedOnlyIfItsSessionIsGone(t *testing.T) {
	for _, verdict := range []metadata.Burial{metadata.BuriedGone, metadata.BuriedMute} {
		p, r := newPeer(t), &register{verdict: verdict}
		reg := watch(t, p, r)
		r.watcher.Doubt("nobody")
		r.watcher.Doubt("self")
		r.watcher.Doubt("peer") // which answers its watcher all the time
		if verdict == metadata.BuriedGone {
			if dead := <-r.buried; dead.ID != "peer" {
				t.Errorf("buried %+v", dead)
			}
			continue
		}
		for r.questions() < 3 {
			<-p.probed
		}
		if len(r.buried) > 0 || count(t, reg, "streamhouse_peers_challenges_total") > 0 {
			t.Error("a peer that keeps its session was buried, or challenged")
		}
	}
}

// questions is how often the store was asked for a burial.
func (r *register) questions() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked
}

func TestAPeerIsChallengedAnewWhenTheStoreIsBack(t *testing.T) {
	p, r := newPeer(t), &register{verdict: metadata.BuriedMute, afterwards: true, failures: 1}
	watch(t, p, r)
	p.answer(0, true)
	<-r.buried
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.counted, []int{2}) {
		t.Errorf("silence was taken for evidence after %v challenges, want 2", r.counted)
	}
}

func TestAPeerThatIsMuteIsChallenged(t *testing.T) {
	for name, silence := range map[string]func(*peer){
		"answers nothing":  func(p *peer) { p.answer(0, true) },
		"is of no use":     func(p *peer) { p.answer(kerr.RebootstrapRequired.Code, false) },
		"is another agent": func(p *peer) { p.answer(kerr.UnsupportedVersion.Code, false) },
	} {
		t.Run(name, func(t *testing.T) {
			p, r := newPeer(t), &register{verdict: metadata.BuriedMute, afterwards: true}
			reg := watch(t, p, r)
			silence(p)
			<-r.buried
			if got := count(t, reg, "streamhouse_peers_challenges_total"); got != 1 {
				t.Errorf("%v challenges", got)
			}
		})
	}
}

// Who asks while a peer is suspected waits for what comes of it, but not for long.
func TestSettle(t *testing.T) {
	p, r := newPeer(t), &register{verdict: metadata.BuriedGone, slow: make(chan struct{})}
	watch(t, p, r)
	r.watcher.Settle(t.Context()) // nothing is suspected
	if suspected, _ := r.watcher.Suspected(); len(suspected) > 0 {
		t.Errorf("%v is suspected", suspected)
	}
	peer := r.Agents()[1].Session
	p.die()
	r.slow <- struct{}{} // the store is being asked
	suspected, decided := r.watcher.Suspected()
	if !slices.Equal(suspected, []uuid.UUID{peer}) {
		t.Errorf("%v is suspected, want %s", suspected, peer)
	}
	settled := make(chan struct{})
	go func() {
		defer close(settled)
		r.watcher.Settle(t.Context())
	}()
	r.slow <- struct{}{}
	<-settled
	if len(r.Agents()) > 1 {
		t.Error("settled before the burial")
	}
	<-decided
	if suspected, _ := r.watcher.Suspected(); len(suspected) > 0 {
		t.Errorf("%v is suspected after the burial", suspected)
	}

	mute, never := newPeer(t), &register{}
	watch(t, mute, never)
	mute.answer(0, true)
	<-never.doubted
	never.watcher.Settle(t.Context())
}

// A peer that answers again before the store has found it dead lives on.
func TestAFalseAlarmEnds(t *testing.T) {
	p, r := newPeer(t), &register{}
	reg := watch(t, p, r)
	p.answer(0, true)
	<-r.doubted
	p.answer(0, false)
	for count(t, reg, "streamhouse_peers_false_alarms_total") == 0 {
		<-p.probed
	}
	if got := testutil.CollectAndCount(reg, "streamhouse_peers_burial_seconds"); got != 1 || count(t, reg, "streamhouse_peers_burials_total") > 0 {
		t.Error("somebody was buried")
	}
}

// A peer that lives and can't be reached is reported before it is challenged, and
// the report is taken back as soon as it answers, or is not watched any more.
func TestAPeerThatCannotBeReachedIsReported(t *testing.T) {
	p, r := newPeer(t), &register{}
	watch(t, p, r)
	self, peer := r.agents[0], r.agents[1]
	about := metadata.Report{AgentID: peer.ID, Session: peer.Session, ReporterID: self.ID, Reporter: self.Session, Unreachable: true}
	want := func(unreachable bool) {
		t.Helper()
		about.Unreachable = unreachable
		if got := <-r.reports; got != about {
			t.Errorf("reported %+v, want %+v", got, about)
		}
	}
	p.answer(0, true)
	want(true)
	<-r.doubted
	<-r.warned // it is found to live
	p.answer(0, false)
	want(false)

	p.answer(0, true)
	want(true)
	r.mu.Lock()
	r.agents = r.agents[:1]
	r.mu.Unlock()
	want(false)
	if len(r.reports) > 0 {
		t.Errorf("%d more reports", len(r.reports))
	}
}

func agents(n int) []metadata.Agent {
	out := make([]metadata.Agent, n)
	for i := range out {
		out[i] = metadata.Agent{ID: fmt.Sprint(i), NodeID: int32(i + 1)}
	}
	return out
}

// Each agent is watched by three others, or by all there are, the watches are
// spread, and one agent that goes moves no watch but its own.
// Bytes are counted by the zone that the client id tells.
func TestWatchersTellTheirZone(t *testing.T) {
	p := newPeer(t)
	watch(t, p, new(register))
	<-p.probed
	p.mu.Lock()
	defer p.mu.Unlock()
	if want := peers.ClientID + ",zone=z"; p.asker != want {
		t.Errorf("a watcher calls itself %q, want %q", p.asker, want)
	}
}

func TestWatchersOfEach(t *testing.T) {
	for n := 1; n <= 50; n++ {
		of, busiest := make(map[int32][]int32), 0
		for self := range int32(n) {
			mine := peers.Watched(self+1, agents(n))
			busiest = max(busiest, len(mine))
			for _, a := range mine {
				of[a.NodeID] = append(of[a.NodeID], self+1)
			}
		}
		for node := range int32(n) {
			watchers := of[node+1]
			if len(watchers) != min(3, n-1) || slices.Contains(watchers, node+1) {
				t.Errorf("of %d agents, %d is watched by %v", n, node+1, watchers)
			}
		}
		if busiest > 12 {
			t.Errorf("of %d agents, one watches %d", n, busiest)
		}
	}
	all := agents(20)
	for self := range int32(20) {
		before := peers.Watched(self+1, all)
		after := peers.Watched(self+1, all[:19]) // without the last
		for _, a := range before {
			if a.NodeID < 20 && self < 19 && !slices.ContainsFunc(after, func(o metadata.Agent) bool { return o.NodeID == a.NodeID }) {
				t.Errorf("agent %d does not watch %d any more", self+1, a.NodeID)
			}
		}
	}
}
