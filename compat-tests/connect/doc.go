// Package connect runs Kafka Connect as its users do: a cluster of workers in distributed mode, driven through their
// REST API, and MirrorMaker 2 as a program of its own. Workers are processes, which a test may kill. Their settings are
// Connect's defaults but for the intervals that would make a test wait.
package connect
