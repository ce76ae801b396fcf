// Package traffic measures what an agent's traffic costs: bytes by direction and by
// pair of zones, requests to the object store, and their price.
//
// # Bytes
//
// Requests and responses of clients are counted with their frames, between the
// client's zone and the agent's; what agents send each other as it is on their
// connections. Both agents count the same bytes, one as sent and one as received: of
// all that crosses between zones, an agent takes on its account what its clients sent
// and received, and what it sent to other agents itself.
//
// # What would have crossed
//
// Where any agent may lead a partition, a client meets one in another zone as often
// as agents live there. So each byte of a client counts by the share of the living
// agents that are outside of its zone: that is what would have crossed if clients
// were not sent to agents of their zone.
//
// # Cost
//
// Prices are a table of the configuration. What the database sends and receives, and
// what is stored, is not in it.
//
// # Work
//
// A request is two additions to the counters of its zone. All else is derived from
// these, every few seconds and when somebody looks.
package traffic
