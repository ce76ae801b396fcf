// Package config holds Kafka's dynamic configuration: the configs of topics,
// and the broker configs that are their defaults.
//
// One table, definitions.go, says of every config its name, type, default,
// check and documentation. Describe, alter, validation and the typed values
// that the rest of the broker reads all derive from it.
//
// A value is looked up as Kafka does: the topic's own, then the cluster-wide
// dynamic broker config, then what the agent was started with, then the
// default. The chain is shown to clients as synonyms (KIP-226).
package config
