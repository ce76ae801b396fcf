// Package bench measures agents from outside, through the listener that clients use: latency, throughput, CPU, memory
// and queries of both deployments, and what consumer groups cost them, with Apache Kafka on the same machine in the same
// run as the yardstick; and what many agents ask of one database, by the database's own statistics.
//
//	make bench [BENCHFLAGS='-markdown /path/of/a/file']
//	go test -run '^$' -bench EndToEnd/throughput -benchtime 1x ./bench
//
// It is one Go benchmark with a sub-benchmark for each scenario and target, which runs once (-benchtime 1x). Each
// target is fresh. The results are Go's benchmark lines, for benchstat, and tables; see the flags in bench_test.go.
//
// Read the numbers with this in mind: the load generator, the database and the S3 server share the machine's cores with
// what is measured, so throughput says what all of them together reach, and CPU seconds, taken from the kernel's
// accounting of the measured process alone, say more. Kafka is a single node without replicas and with its defaults:
// it acknowledges before anything is on disk, where an agent has the database's flush behind every acknowledgement.
//
// Groups are driven by requests of the protocol instead of a client library, which would add its own intervals and could
// not have ten thousand members in one process. A rebalance is measured as the broker's part of it: members ask as soon
// as they can, not at their next heartbeat.
package bench
