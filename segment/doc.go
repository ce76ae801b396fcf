// Package segment defines the immutable object in which an agent keeps record
// batches: its name, its bytes, and how both are checked.
//
// A segment holds sections. A section is one contiguous run of record batches
// of one partition, in the order in which they were accepted. Behind the
// sections stands a footer that names each of them, and behind the footer a
// trailer of fixed size, so that a reader who knows nothing but an object's
// size can find everything else in it. FORMAT.md is the format, as tables.
//
// Offsets are not in a segment. They are assigned when the segment is committed
// and stamped into the batches when these are served, which is why an upload
// never has to wait for the commit before it.
//
// The footer exists for repair: readers go by the index in the metadata store,
// and never read a footer on the way to a record. It says enough to rebuild
// that index from the bucket alone.
//
// The package is a leaf. It knows of a record batch only where its header says
// how long it is and how many records it has.
package segment
