// Package scenario makes the records that the compatibility tests write, and computes from them what every client must
// read back: the log of each partition, the answers of ListOffsets, and where a seek by timestamp must land.
package scenario
