package testdb

import (
	"bytes"
	"encoding/binary"
)

// PostgresExecutes matches a chunk from a client that has PostgreSQL run
// something: it ends with Execute and Sync, or is a simple Query. The round trip
// that only prepares a statement does not match.
func PostgresExecutes(chunk []byte) bool {
	const executeSync = "E\x00\x00\x00\x09\x00\x00\x00\x00\x00S\x00\x00\x00\x04"
	if bytes.HasSuffix(chunk, []byte(executeSync)) {
		return true
	}
	return len(chunk) > 5 && chunk[0] == 'Q' && int(binary.BigEndian.Uint32(chunk[1:])) == len(chunk)-1
}

// PostgresReady matches a chunk from PostgreSQL that ends an answer outside a
// transaction (ReadyForQuery, status idle): whatever was asked is committed.
func PostgresReady(chunk []byte) bool {
	return bytes.HasSuffix(chunk, []byte("Z\x00\x00\x00\x05I"))
}

// HTTPRequests returns a match for a chunk that begins an HTTP request with this
// method.
func HTTPRequests(method string) func(chunk []byte) bool {
	return func(chunk []byte) bool { return bytes.HasPrefix(chunk, []byte(method+" ")) }
}

// HTTPAnswers matches a chunk that begins an HTTP/1.1 response, interim ones
// (100 Continue) excepted.
func HTTPAnswers(chunk []byte) bool {
	const protocol = "HTTP/1.1 "
	return len(chunk) > len(protocol) && bytes.HasPrefix(chunk, []byte(protocol)) && chunk[len(protocol)] != '1'
}
