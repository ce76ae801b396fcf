package compattests

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/streamhouse/streamhouse/compat-tests/harness"
	"github.com/streamhouse/streamhouse/internal/testdb"
)

// What befalls remote appends: producers in two zones write to all partitions, so that agents of one zone have those of
// the other put their records in order.

// zoneScenarios are the rows of the fault matrix for agents of several zones.
var zoneScenarios = []faultScenario{
	{name: "answers to peers are lost", row: "agent ⇹ agent cut", goal: 10 * time.Second, make: zonedAgents, once: losePeersAnswers},
	{name: "questions of peers are lost", row: "agent ⇹ agent cut", goal: 10 * time.Second, long: true, make: zonedAgents, once: losePeersQuestions},
	{name: "the holder's link is cut", row: "agent ⇹ agent cut", goal: 10 * time.Second, long: true, make: zonedAgents, once: cutHolder},
	{name: "the holder's link is reset", row: "agent ⇹ agent cut", goal: 5 * time.Second, long: true, make: zonedAgents, once: resetHolder},
	{name: "all links of peers are cut", row: "agent ⇹ agent cut", goal: 10 * time.Second, long: true, make: zonedAgents, once: cutAllPeers},
	{name: "links of peers are slow", row: "agent ⇹ agent cut", goal: 5 * time.Second, long: true, make: zonedAgents, once: slowPeers},
	{name: "a holder is killed", row: "SIGKILL holder", goal: 5 * time.Second, long: true, make: zonedAgents, once: killWriting},
	{name: "a holder is frozen, its commit lands", row: "SIGSTOP holder, then CONT", goal: 10 * time.Second, long: true, make: zonedAgents, once: freezeCommitted},
	{name: "a holder is frozen, its commit waits", row: "SIGSTOP holder, then CONT", goal: 10 * time.Second, long: true, make: zonedAgents, once: freezeWaiting},
	{name: "a holder hands over", row: "SIGTERM holder", goal: 5 * time.Second, long: true, make: zonedAgents, once: stopHolder},
	{name: "a holder is cut off from Postgres", row: "agent ⇹ PG cut", goal: 15 * time.Second, long: true, make: zonedAgents, once: cutFromPostgres},
	{name: "an uploader is killed", row: "SIGKILL uploader", goal: 5 * time.Second, long: true, make: zonedAgents, once: killUploader},
	{name: "an uploader is frozen", row: "SIGSTOP uploader, then CONT", goal: 10 * time.Second, long: true, make: zonedAgents, once: freezeUploader},
	{name: "an uploader is cut off from Postgres", row: "agent ⇹ PG cut", goal: 15 * time.Second, long: true, make: zonedAgents, once: cutUploaderFromPostgres},
	{name: "S3 is slow in a zone", row: "S3 slow", goal: 10 * time.Second, long: true, make: zonedAgents, once: slowBucketOfZone},
	{name: "answers of commits are lost", row: "PG ambiguous commit", long: true, make: zonedAgents, once: loseEachAnswer},
}

// TestZoneScenarios is TestScenarios with agents in three zones, whose links to each other have faults too.
func TestZoneScenarios(t *testing.T) { runScenarios(t, zoneScenarios) }

// zonedAgents makes two agents in each of three zones, with clients in all.
func zonedAgents(t *testing.T) *faultRun {
	t.Helper()
	stores := harness.FastStores(t)
	cluster := harness.StartZonedCluster(t, stores, shortLeases...)
	clients := 0
	r := startFaultRun(t, cluster.Agents, stores, clientele{
		places: len(cluster.Zones),
		options: func() []kgo.Opt { // the zones by turns
			clients++
			return cluster.Client(cluster.Zones[clients%len(cluster.Zones)])
		},
		views: viewsOf(cluster, slow(t)),
	})
	r.zones = cluster
	return r
}

// uploader is an agent to which clients of another zone than that of the first partition's holder write this partition.
func (r *faultRun) uploader(t *testing.T) *harness.LinkedAgent {
	t.Helper()
	ctx := deadline(t, faultDeadline)
	holder := r.victim(t)
	var uploader *harness.LinkedAgent
	eventually(ctx, t, func() error {
		for _, zone := range r.zones.Zones {
			if zone == holder.Zone {
				continue
			}
			metadata, err := kadm.NewClient(r.client(t, r.zones.Client(zone)...)).Metadata(ctx, r.topic)
			if err != nil {
				return fmt.Errorf("ask for leaders: %w", err)
			}
			leader := metadata.Topics[r.topic].Partitions[0].Leader
			broker := slices.IndexFunc(metadata.Brokers, func(b kadm.BrokerDetail) bool { return b.NodeID == leader })
			if broker < 0 {
				continue
			}
			address := fmt.Sprintf("%s:%d", metadata.Brokers[broker].Host, metadata.Brokers[broker].Port)
			uploader = r.agents[slices.IndexFunc(r.agents, func(a *harness.LinkedAgent) bool { return a.Address() == address })]
			if uploader.Zone == zone {
				return nil
			}
		}
		return fmt.Errorf("clients of other zones write to zone %s", holder.Zone)
	})
	return uploader
}

// losePeersAnswers has what the holder does for other agents done, and not answered.
func losePeersAnswers(t *testing.T, r *faultRun) { r.silencePeers(t, testdb.ToClient) }

// losePeersQuestions has what other agents ask of the holder not arrive until it is too late.
func losePeersQuestions(t *testing.T, r *faultRun) { r.silencePeers(t, testdb.ToServer) }

func (r *faultRun) silencePeers(t *testing.T, d testdb.Direction) {
	t.Helper()
	ctx := deadline(t, faultDeadline)
	holder := r.victim(t)
	holder.Peers.CutOneWay(d)
	r.await(ctx, t, "with a holder that its peers do not hear")
	pause(ctx, scenarioLease)
	holder.Heal()
}

// cutHolder cuts the holder off from its peers, while all of them reach clients and stores.
func cutHolder(t *testing.T, r *faultRun) {
	ctx := deadline(t, faultDeadline)
	holder := r.victim(t)
	holder.Peers.Cut()
	r.await(ctx, t, "without the holder's link")
	pause(ctx, scenarioLease)
	holder.Heal()
}

// resetHolder resets all connections of peers to the holder, time and again.
func resetHolder(t *testing.T, r *faultRun) {
	const resets = 5
	ctx := deadline(t, faultDeadline)
	holder := r.victim(t)
	for range resets {
		holder.Peers.Reset()
		r.await(ctx, t, "while peers are refused")
		holder.Heal()
		r.await(ctx, t, "after peers were refused")
	}
}

// cutAllPeers has no agent reach another, but for their Kafka listeners.
func cutAllPeers(t *testing.T, r *faultRun) {
	ctx := deadline(t, faultDeadline)
	for _, a := range r.agents {
		a.Peers.Cut()
	}
	r.await(ctx, t, "without links between agents")
	pause(ctx, scenarioLease)
	healAll(r)
}

// slowPeers has all that agents ask each other take a while.
func slowPeers(t *testing.T, r *faultRun) {
	const slow = 100 * time.Millisecond
	ctx := deadline(t, faultDeadline)
	for _, a := range r.agents {
		a.Peers.Delay(slow)
	}
	r.await(ctx, t, "with slow links")
	pause(ctx, scenarioLease)
	healAll(r)
}

// stopHolder stops the holder, which hands over what it leads, and starts it again.
func stopHolder(t *testing.T, r *faultRun) {
	ctx := deadline(t, faultDeadline)
	holder := r.victim(t)
	stop(ctx, t, holder)
	r.await(ctx, t, "without the holder")
	launch(ctx, t, holder)
}

// killUploader kills an agent while another one puts in order what it has uploaded.
func killUploader(t *testing.T, r *faultRun) { killInFlight(t, r, r.uploader(t)) }

// freezeUploader freezes an agent, which learns when it is thawed what became of what it had asked others for.
func freezeUploader(t *testing.T, r *faultRun) {
	ctx := deadline(t, faultDeadline)
	uploader := r.uploader(t)
	freeze(t, uploader)
	r.await(ctx, t, "without the uploader")
	pause(ctx, scenarioLease)
	thaw(t, uploader)
}

// cutUploaderFromPostgres leaves an agent its peers, which it can ask for commits, but not the database, which it has
// to ask what became of those that are in doubt.
func cutUploaderFromPostgres(t *testing.T, r *faultRun) {
	ctx := deadline(t, faultDeadline)
	uploader := r.uploader(t)
	uploader.Postgres.Cut()
	r.await(ctx, t, "without the uploader's database")
	pause(ctx, scenarioLease)
	uploader.Heal()
}

// slowBucketOfZone slows the bucket down for the zone of an uploader.
func slowBucketOfZone(t *testing.T, r *faultRun) {
	const slow = 300 * time.Millisecond
	ctx := deadline(t, faultDeadline)
	for _, a := range r.zones.In(r.uploader(t).Zone) {
		a.S3.Delay(slow)
	}
	r.await(ctx, t, "with a slow bucket")
	pause(ctx, scenarioLease)
	healAll(r)
}
