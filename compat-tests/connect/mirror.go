package connect

import (
	"maps"
	"strings"
	"testing"

	"github.com/streamhouse/streamhouse/compat-tests/toolchain"
)

// Clusters are the two between which MirrorMaker 2 copies, by their aliases West and East. A topic of the source is
// called West.topic at the target.
type Clusters struct {
	Source, Target []string // bootstrap addresses
}

// The aliases of the source and of the target.
const (
	West = "west"
	East = "east"
)

// mirrorSettings are MirrorMaker's defaults but for what one broker can't do, and for the intervals: its looks at what is
// to be copied are 10 minutes apart by default, its checkpoints of groups one.
var mirrorSettings = map[string]string{
	"groups":                                ".*",
	"sync.group.offsets.enabled":            "true",
	"offset.lag.max":                        "0", // the offset of every record is noted, not that of every hundredth
	"replication.factor":                    "1",
	"tasks.max":                             "2",
	"refresh.topics.interval.seconds":       "1",
	"refresh.groups.interval.seconds":       "1",
	"sync.topic.configs.interval.seconds":   "1",
	"emit.checkpoints.interval.seconds":     "1",
	"sync.group.offsets.interval.seconds":   "1",
	"offset-syncs.topic.replication.factor": "1",
	"checkpoints.topic.replication.factor":  "1",
	"heartbeats.topic.replication.factor":   "1",
}

// maxRequestSize is enough for the largest record of the tests.
const maxRequestSize = "8388608"

// MirrorConnectors are the configurations of MirrorMaker's connectors, by their names. They run at the target.
func MirrorConnectors(clusters Clusters) map[string]map[string]string {
	const bytes = "org.apache.kafka.connect.converters.ByteArrayConverter"
	connectors := make(map[string]map[string]string)
	for _, kind := range []string{"Source", "Checkpoint", "Heartbeat"} {
		config := maps.Clone(mirrorSettings)
		maps.Copy(config, map[string]string{
			"connector.class":                    "org.apache.kafka.connect.mirror.Mirror" + kind + "Connector",
			"source.cluster.alias":               West,
			"target.cluster.alias":               East,
			"source.cluster.bootstrap.servers":   strings.Join(clusters.Source, ","),
			"target.cluster.bootstrap.servers":   strings.Join(clusters.Target, ","),
			"key.converter":                      bytes,
			"value.converter":                    bytes,
			"header.converter":                   bytes,
			"producer.override.max.request.size": maxRequestSize,
		})
		connectors["mirror-"+strings.ToLower(kind)] = config
	}
	return connectors
}

// RunMirrorMaker starts MirrorMaker 2 as a program of its own, which ends with the test, and returns its version. It
// may not be at work yet.
func RunMirrorMaker(t testing.TB, clusters Clusters) (version string) {
	t.Helper()
	java, err := toolchain.NewConnect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	properties := maps.Clone(mirrorSettings)
	maps.Copy(properties, map[string]string{
		"clusters":                          West + "," + East,
		West + ".bootstrap.servers":         strings.Join(clusters.Source, ","),
		East + ".bootstrap.servers":         strings.Join(clusters.Target, ","),
		West + "->" + East + ".enabled":     "true",
		East + ".producer.max.request.size": maxRequestSize,
		"config.storage.replication.factor": "1",
		"offset.storage.replication.factor": "1",
		"status.storage.replication.factor": "1",
		East + ".offset.flush.interval.ms":  "500",
	})
	p := prepare(t, java, "org.apache.kafka.connect.mirror.MirrorMaker", "MirrorMaker", properties)
	if err := p.launch(t.Context()); err != nil {
		t.Fatal(err)
	}
	return java.Version()
}
