// Package rpc is what agents say to each other: an agent that has uploaded records
// for a partition that another one leads asks that one to commit them, agents hear
// of what others commit, and agents of one zone share the blocks that one of them
// has read. Record bytes go through it in blocks only, and so within a zone.
//
// # Wire
//
// HTTP/2 over TLS 1.3, on a listener of its own:
//
//	POST /v1/commit         a metadata.Commit; answered with its results
//	POST /v1/follow         a stream both ways: what is wanted up, growth of logs down
//	GET  /v1/blocks/{id}    ?size=&from=&to=: bytes of an object
//	GET  /v1/ping           whether anybody is there
//
// The path has the version of the encoding, a header that of the protocol as a whole
// (headers.go). Bodies are compact: integers of variable length, differences instead
// of values, ids once (wire.go, commit_codec.go, growth_codec.go). A batch or an
// extent takes 15 to 25 bytes.
//
// HTTP/2 and not a framing of its own: streams, flow control by stream, bounds on
// streams and signs of life by connection are there, and were tested by others.
// Blocks have a connection of their own, so that no small call waits behind one.
//
// # Trust
//
// Both sides prove with a key that they are of the same cluster and agent group
// (identity.go). Whom they are is said in headers, and looked up in the view of the
// cluster: a life of an agent that is not in it is refused, and so is a call that is
// meant for another life than the one that it reached.
//
// # Outcomes
//
// A call that changes something has one of three ends. An answer. Or an error that is
// metadata.ErrUnavailable: the call did not begin, since no connection was made or
// the other side said so. Or any other error: it may have happened, may be happening,
// and may happen yet. Nothing that changes something is sent twice.
//
// # Reachability
//
// A peer that fails to answer counts as unreachable until it answers a ping, which is
// tried at once and then twice a second. A frozen one is noticed within about two
// seconds by the connection's own pings.
package rpc
