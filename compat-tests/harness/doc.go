// Package harness builds the streamhouse binary and runs agents of it as child processes, in the two deployments that
// people run: embedded (one agent, one data folder) and cluster (several agents on PostgreSQL and S3). The links of a
// cluster can be made to fail (LinkedCluster), and those of one in three availability zones are counted (ZonedCluster).
package harness
