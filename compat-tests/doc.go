// Package compattests runs the built streamhouse binary against the clients and tools that people use, each from its own
// package: Apache Kafka's Java client (the newest, and the last of Apache Kafka 2) and console tools, Kafka Connect,
// MirrorMaker 2, Kafka Streams, librdkafka under confluent-kafka for Python and as kcat, aiokafka, kafka-python,
// franz-go, sarama, kafka-go and KafkaJS.
//
// A target is something that speaks Kafka: the embedded deployment, the cluster deployment (two agents on PostgreSQL
// and S3), or Apache Kafka itself, the oracle. What the tests demand was first shown to hold of the oracle, and when a
// test and an agent disagree the same test against Kafka settles it:
//
//	COMPAT_TARGET=apachekafka go test ./...
//
// COMPAT_TARGET is a comma-separated list of embedded, cluster and apachekafka; the default is embedded,cluster.
// STREAMHOUSE_BIN names an agent binary to test in place of a fresh build. COMPAT_KILLS is how often TestKill9 kills
// an agent of each target, COMPAT_CHAOS for how many seconds TestGroupsChaos makes faults, CHAOS_DURATION for how long
// TestFaultMix does, with faults that CHAOS_SEED chooses, COMPAT_ROUNDS how often TestScenarios makes each fault if it
// runs with COMPAT_ALL. COMPAT_SEED makes other test data and other moments to kill; a failing test prints its seed.
// COMPAT_ALL=1 runs what takes minutes too.
//
// TestZones, TestZoneScenarios and TestZonesOfClients have three availability zones, told by address, whose links are
// counted (harness.ZonedCluster).
//
// What works is noted by the tests themselves (package report), and docs/COMPATIBILITY.md is made of it by `make
// compat-all`, which runs everything. Every other run on the default targets fails if it notes something else than the
// document says. A new client is a clients.Client and a line in clientKinds.
//
// The packages: scenario makes the test data and says what must be read back; clients drives each client through one
// interface; connect runs Kafka Connect's workers; report notes what works; harness builds and runs agents; apachekafka
// runs Kafka; check judges what producers and consumers saw; wire looks at the record batches as they lie in the log;
// bench measures; toolchain fetches what is not ours and caches it.
package compattests
