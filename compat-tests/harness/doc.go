// Package harness builds the streamhouse binary and runs agents of it as child processes, in the two deployments that
// people run: embedded (one agent, one data folder) and cluster (several agents on PostgreSQL and S3).
package harness
