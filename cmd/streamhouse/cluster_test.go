package main

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/segment/objstore/driver"
)

// Virtual clusters on one pair of stores, and one that has no name, have topics, agents
// and Kafka ids of their own, of the same names.
func TestVirtualClusters(t *testing.T) {
	bothStores(t, func(t *testing.T, s stores) {
		ids, clusters := make(map[string]string), []string{"", "a-b", "a_b"}
		agents := make(map[string]*testAgent)
		for _, name := range clusters {
			agents[name] = startAgent(t, s, func(s *Settings) { s.Cluster = name; s.Flush.InlineMaxBytes = 0 })
			client := connect(t, agents[name].addr)
			record := &kgo.Record{Topic: "orders", Value: []byte("of " + name)}
			if err := client.ProduceSync(testContext(t), record).FirstErr(); err != nil {
				t.Fatal(err)
			}
			if record.Offset != 0 {
				t.Errorf("%q: offset %d", name, record.Offset)
			}
			in, err := kadm.NewClient(client).Metadata(testContext(t))
			if err != nil {
				t.Fatal(err)
			}
			if len(in.Brokers) != 1 || in.Brokers[0].NodeID != 1 || len(in.Topics) != 1 {
				t.Errorf("%q: brokers %v, topics %v", name, in.Brokers, in.Topics.Names())
			}
			if other, taken := ids[in.Cluster]; taken {
				t.Errorf("%q and %q have one cluster id", name, other)
			}
			ids[in.Cluster] = name
		}
		for _, name := range clusters {
			checkCluster(t, agents[name])
		}
	})
}

// checkCluster looks at what an agent's cluster has, and where.
func checkCluster(t *testing.T, a *testAgent) {
	t.Helper()
	inspector, done, err := openInspector(testContext(t), a.settings)
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	leases, err := inspector.Leases(testContext(t), metadata.LeaseFilter{Topic: "orders"})
	if err != nil || len(leases) != 1 {
		t.Errorf("%q: leases %+v, %v", a.settings.Cluster, leases, err)
	}
	objects, err := driver.Open(a.settings.clusterObjects())
	if err != nil {
		t.Fatal(err)
	}
	defer objects.Close()
	var segments int
	for o, err := range objects.List(testContext(t), "segments/", "") {
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(o.Key, ".seg") {
			segments++
		}
	}
	if segments != 1 {
		t.Errorf("%q: %d objects", a.settings.Cluster, segments)
	}
}

func TestClusterPlaces(t *testing.T) {
	for _, test := range []struct{ metadata, objects, wantMetadata, wantObjects string }{
		{"postgres://u:p@db/x?sslmode=disable", "s3://bucket?region=r", "postgres://u:xxxxx@db/x?sslmode=disable, schema streamhouse_one", "s3://bucket/one?region=r"},
		{"sqlite:///d.a/meta", "s3://bucket/deep/er", "sqlite:///d.a/meta-one", "s3://bucket/deep/er/one"},
		{"sqlite://x/metadata.db", "file://./objects", "sqlite://x/metadata-one.db", "file://./objects/one"},
		{"sqlite://x/metadata.db", "file://.", "sqlite://x/metadata-one.db", "file://./one"},
	} {
		s := &Settings{MetadataURL: test.metadata, Cluster: "one"}
		if got := s.metadataPlace(); got != test.wantMetadata {
			t.Errorf("metadata at %s, want %s", got, test.wantMetadata)
		}
		if got := objectsOf(test.objects, s.Cluster); got != test.wantObjects {
			t.Errorf("objects at %s, want %s", got, test.wantObjects)
		}
		if got := objectsOf(test.objects, ""); got != test.objects {
			t.Errorf("objects without a cluster at %s, want %s", got, test.objects)
		}
	}
}
