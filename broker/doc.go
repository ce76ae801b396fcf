// Package broker gives Kafka's requests their meaning.
//
// This root package only translates between the wire and the domain: one file
// an API, NN_name.go, named by the API's key and opening with its versions and
// KIPs. It holds no lock and no map. The state lives below, one noun a
// package: topology (agents, topics, leaders), config, partition and ingest
// (the write path), fetch (the read path), group.
//
// routes.go is the one table of what is served; ApiVersions derives from it.
// errors.go is the one table from domain errors to Kafka's codes.
package broker
