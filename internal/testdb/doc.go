// Package testdb gives tests real servers: PostgreSQL, an S3 server, and a TCP
// proxy that loses answers on purpose.
//
// [Postgres] and [S3] return the URL of a fresh database and a fresh bucket on
// servers that a whole test run shares. The run's servers are named by
// STREAMHOUSE_TEST_POSTGRES and STREAMHOUSE_TEST_S3 (`make test` sets both, see
// tools/testenv); where a variable is missing, the test process starts a server
// of its own on first use. A server that cannot be started fails the test, it
// never skips it.
//
// [StartPostgres] and [StartS3] start a private server that the test may stop,
// kill, freeze and start again on the same port. [NewProxy] stands between a
// client and a server and makes "applied, but the answer was lost" happen.
//
// No server outlives the process that started it, however that process ends:
// each runs under a small shell whose standard input is a pipe from the test.
// When the pipe closes, the shell ends the server and removes its folder. So no
// TestMain is needed, and no goroutine is left for leak checks to find. A [Proxy]
// does run goroutines until the test's cleanups, so tests that use one check for
// leaks in TestMain (goleak.VerifyTestMain).
package testdb
