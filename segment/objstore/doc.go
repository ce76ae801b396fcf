// Package objstore is the object store as StreamHouse needs it: immutable
// objects under names that are never used again.
//
// Store is the contract. Drivers live in the folders s3 and dir, and driver
// opens the one that a URL names. What is the same for all of them is laid
// around a driver in this order:
//
//	WithPolicy(WithMetrics(driver, metrics), policy)
//
// so that the metrics count what a bill counts, each attempt of its own, and so
// that a driver makes exactly one attempt and says honestly what came of it.
//
// The folder objstoretest holds the tests that every driver passes, and a store
// in memory; faulty makes a store fail on purpose.
package objstore
