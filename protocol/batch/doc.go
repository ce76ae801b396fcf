// Package batch reads, checks and stamps Kafka record batches of format v2
// (magic 2, KIP-98) without re-encoding them.
//
// A [Batch] is a view over bytes that somebody else owns: the client's request,
// a cached object block, a row. Nothing here copies records. The broker's three
// uses are
//
//   - ingest: [Validate] does what Kafka's LogValidator does to a produced batch
//     and hands back the bytes to store, which are the client's own unless the
//     topic asks for another compression;
//   - serving: [Next] walks stored batches, [Batch.Stamp] writes the offset and
//     leader epoch that the commit assigned. Both fields lie outside the batch's
//     CRC, which is why an upload need not know its offsets;
//   - searching: [FindTimestamp] answers ListOffsets at the granularity of a
//     record.
//
// # Layout
//
//	offset size field
//	     0    8 base offset               not covered by the CRC
//	     8    4 length of what follows    not covered by the CRC
//	    12    4 partition leader epoch    not covered by the CRC
//	    16    1 magic, 2                  not covered by the CRC
//	    17    4 CRC-32C of all that follows
//	    21    2 attributes: codec (bits 0-2), timestamp type (3), transactional (4), control (5)
//	    23    4 last offset delta
//	    27    8 base timestamp, ms
//	    35    8 max timestamp, ms
//	    43    8 producer id, -1 for none
//	    51    2 producer epoch
//	    53    4 base sequence
//	    57    4 record count
//	    61      records, compressed as one block
//
// # Memory
//
// An uncompressed batch is walked where it lies. A compressed one is streamed
// through a pooled scratch of 64 KiB, however large a record is or claims to be,
// plus what its codec needs: the lz4 block (at most 4 MiB), the snappy block
// (bounded by what its compressed bytes can expand to), the zstd window (8 MiB; a
// frame that declares a larger one is decoded whole, within
// [Rules.MaxDecompressedBytes]).
//
// Everything is pure: no I/O, no clock, no goroutine. Functions are safe for
// concurrent use on different bytes.
package batch
