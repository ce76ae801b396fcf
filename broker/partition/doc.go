// Package partition appends batches to partitions under their leases.
//
// The Table knows of a partition only what it needs between two commits: the
// lease, how many of its batches are in the ingest pool, and the appends that
// wait for a lease. All else is in the metadata store, so that this memory can
// be dropped whenever a lease is lost.
//
//	          first append                    granted
//	unknown ───────────────▶ acquiring ───────────────────▶ held ──┐
//	   ▲                       │     ▲                             │ appends go
//	   │ refused: all that     │     │ next append, when nothing   │ straight into
//	   │ waits is failed       │     │ of the old lease is in the  │ the pool
//	   └───────────────────────┘     │ pool any more               │
//	                                 └──────────── lost ◀──────────┘
//
// A held partition that is handed over lets appends wait until the pool has none of
// it; then its successor leads, and what waits is refused with the successor's name.
//
// A partition that is led in another zone is held too if its lease can be borrowed
// (Config.Borrow). Here it is like any other, but that it is not handed over.
//
// # Order
//
// Appends of one partition are committed in the order of the calls. Those that
// wait for a lease wait in a queue and enter the pool before any later one. The
// pool never has batches of two leases of a partition: the outcomes of the old
// one are known before the next is asked for, so that an agent never fences its
// own commits. Of batches that fail before they come to the pool, the pool is
// told, so that none passes a failed one of its producer: that is class Q of
// package ingest.
package partition
