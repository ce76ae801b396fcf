package compattests

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/compat-tests/harness"
	"github.com/streamhouse/streamhouse/internal/testdb"
	"github.com/streamhouse/streamhouse/protocol/batch/batchtest"
)

const (
	crowdAgents = 50
	crowdTopic  = "crowd"
	// The goal, which the database's own statistics show.
	crowdSettles    = time.Second
	crowdStatements = 150
)

// TestCrowd starts fifty agents at once, and then writes to one partition through all of them at the same moment (50
// agents at once, in the fault matrix). One is granted the lease, and all others name it. What managers of leases do
// about it is tested quickly in metadata/postgres.
func TestCrowd(t *testing.T) {
	if !slow(t) {
		return
	}
	server := testdb.StartPostgres(t, "max_connections=1000", "shared_preload_libraries=pg_stat_statements")
	stores := harness.Stores{Metadata: server.Database(), Objects: testdb.S3(t)}
	begun := time.Now()
	agents := harness.Cluster(t, stores, crowdAgents)
	t.Logf("%d agents know of each other %s after their start", crowdAgents, time.Since(begun).Round(time.Millisecond))

	ctx := deadline(t, 2*time.Minute)
	client, err := kgo.NewClient(kgo.SeedBrokers(agents[0].Address()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	admin := kadm.NewClient(client)
	if _, err := admin.CreateTopic(ctx, 1, -1, nil, crowdTopic); err != nil {
		t.Fatal(err)
	}
	metadata, err := admin.Metadata(ctx, crowdTopic)
	if err != nil {
		t.Fatal(err)
	}
	nodes := metadata.Brokers.NodeIDs()
	write := func(node int32) (*kmsg.ProduceResponseTopicPartition, error) {
		request := kmsg.NewPtrProduceRequest()
		request.Acks, request.TimeoutMillis = -1, 30_000
		topic := kmsg.NewProduceRequestTopic()
		topic.Topic, topic.TopicID = crowdTopic, metadata.Topics[crowdTopic].ID
		partition := kmsg.NewProduceRequestTopicPartition()
		partition.Records = batchtest.Of(fmt.Sprint("from ", node))
		topic.Partitions = append(topic.Partitions, partition)
		request.Topics = append(request.Topics, topic)
		answer, err := client.Broker(int(node)).Request(ctx, request)
		if err != nil {
			return nil, err
		}
		return &answer.(*kmsg.ProduceResponse).Topics[0].Partitions[0], nil
	}
	for _, node := range nodes { // what is measured is neither a connection nor the way of a new topic to the agents
		if err := awaitTopic(ctx, client.Broker(int(node))); err != nil {
			t.Fatal(err)
		}
	}
	query[struct{ Made string }](t, stores, `CREATE EXTENSION pg_stat_statements`)
	query[struct{ Reset *string }](t, stores, `SELECT pg_stat_statements_reset()::text`)

	answers := make([]*kmsg.ProduceResponseTopicPartition, len(nodes))
	errs := make([]error, len(nodes))
	begun = time.Now()
	var writing sync.WaitGroup
	for i, node := range nodes {
		writing.Go(func() { answers[i], errs[i] = write(node) })
	}
	writing.Wait()
	took := time.Since(begun)
	acquisitions, statements := crowdUse(t, stores)
	checkCrowd(t, nodes, answers, errs)
	t.Logf("settled after %s with %d statements about leases; in that time agents made %d in all",
		took.Round(time.Millisecond), acquisitions, statements)
	if took > crowdSettles || acquisitions >= crowdStatements {
		t.Errorf("the goal is less than %s and %d statements", crowdSettles, crowdStatements)
	}
	epochs := query[leadership](t, stores, `SELECT partition, agent_id, leader_epoch FROM leader_epochs JOIN topics USING (topic_id) WHERE name = $1`, crowdTopic)
	if len(epochs) != 1 {
		t.Errorf("the partition was led by %v, want one", epochs)
	}
}

// awaitTopic returns when a broker knows the topic.
func awaitTopic(ctx context.Context, broker *kgo.Broker) error {
	for {
		request := kmsg.NewPtrMetadataRequest()
		topic := kmsg.NewMetadataRequestTopic()
		topic.Topic = kmsg.StringPtr(crowdTopic)
		request.Topics = append(request.Topics, topic)
		answer, err := broker.Request(ctx, request)
		if err != nil || answer.(*kmsg.MetadataResponse).Topics[0].ErrorCode == 0 {
			return err
		}
	}
}

// crowdUse counts what agents asked of the database since the statistics were reset, and what of it was about leases.
func crowdUse(t *testing.T, stores harness.Stores) (acquisitions, statements int64) {
	t.Helper()
	type use struct {
		Calls int64
		Query string
	}
	for _, u := range query[use](t, stores, `SELECT calls, query FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid
		WHERE datname = current_database() AND toplevel AND strpos(query, 'pg_stat_statements') = 0 ORDER BY calls DESC`) {
		t.Logf("%4d × %.100q", u.Calls, u.Query)
		statements += u.Calls
		if strings.Contains(u.Query, "acquire_leases") {
			acquisitions += u.Calls
		}
	}
	return acquisitions, statements
}

// checkCrowd demands that one agent has taken the write, and that all others have named it.
func checkCrowd(t *testing.T, nodes []int32, answers []*kmsg.ProduceResponseTopicPartition, errs []error) {
	t.Helper()
	if len(nodes) != crowdAgents {
		t.Errorf("%d agents are listed", len(nodes))
	}
	winner := int32(-1)
	for i, a := range answers {
		if errs[i] != nil {
			t.Fatalf("agent %d: %v", nodes[i], errs[i])
		}
		if a.ErrorCode == 0 {
			if winner >= 0 {
				t.Errorf("agents %d and %d have taken the write", winner, nodes[i])
			}
			winner = nodes[i]
		}
	}
	for i, a := range answers {
		if nodes[i] != winner && (a.ErrorCode != kerr.NotLeaderForPartition.Code || a.CurrentLeader.LeaderID != winner) {
			t.Errorf("agent %d answered %v and named %d as the leader, want %d", nodes[i], kerr.ErrorForCode(a.ErrorCode), a.CurrentLeader.LeaderID, winner)
		}
	}
}
