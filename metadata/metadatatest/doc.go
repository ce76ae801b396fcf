// Package metadatatest says what a metadata store must do, as tests that every
// store runs on its real database. Their names are the specification.
//
// The tests share one store and use topics, agents and groups of their own.
package metadatatest
