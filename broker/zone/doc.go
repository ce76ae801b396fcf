// Package zone finds out in which availability zone a client is.
//
// A client is known to be in a zone, in this order:
//
//  1. by a tag in its client id: zone=us-east-1a, and the spellings of other
//     brokers that keep their log in a bucket;
//  2. by its address, where the operator has said which subnets a zone has;
//  3. by the rack of its Fetch requests (client.rack), which is remembered for
//     its other requests.
//
// Of any other client nothing is known, and it counts as one of the zone of the
// agent that it has reached.
//
// Clients that are known to be elsewhere are sent to agents of their own zone,
// and [Homing] sees to it that nobody is sent to and fro.
package zone
