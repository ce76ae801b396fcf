// Package protocol turns a byte stream into Kafka requests and replies: it
// listens, frames, decodes with kmsg, negotiates versions, and keeps replies in
// the order of their requests. It knows no topic, no lease and no store; what a
// request means is the business of the handlers in its route table.
//
// # One connection
//
//	peer ──> reader ──> handler ──> queue ──> writer ──> peer
//	            │           └── Later: wait ──┘
//	            └ slot, then memory as the body arrives
//
// The reader takes a frame's size, a slot (requests in flight on this
// connection), and then the body, for whose bytes it takes request memory (over
// all connections) as they arrive: what a peer only claims to send is nobody's
// loss. It decodes and calls the handler, so handlers begin in the
// order in which the peer sent. What a handler must wait for runs on a goroutine
// of its own, and the reader goes on; the writer sends replies in request order
// and never delays one that is ready. Slot and memory return when the reply was
// written. A full connection is simply not read: that is the back-pressure.
//
// # Trust
//
// Nothing that a peer sends is believed. A size is bounded before it allocates;
// a body grows as it arrives; a body's structure is walked (layout.go) before
// kmsg decodes it, because kmsg trusts counts. What is malformed closes its
// connection, and nothing else. A panic in a handler does the same.
//
// # Ends
//
// A connection's context ends when the peer is gone, so that long polls end.
// [Server.Shutdown] stops the reading and lets what is in flight be answered.
// No goroutine of a connection outlives [Server.Serve].
package protocol
