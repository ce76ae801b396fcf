// Package config holds Kafka's configuration: the configs of topics and groups,
// and the broker configs, of which some are their defaults.
//
// One table for each kind says of every config its name, type, default, check
// and documentation. Describe, alter, validation, an agent's settings and the
// typed values that the rest of the broker reads all derive from it.
//
// A value is looked up as Kafka does: the topic's or the group's own, then the
// dynamic broker config of the agent, then that of the cluster, then what the
// agent was started with, then the default. The chain is shown to clients as
// synonyms (KIP-226).
package config
