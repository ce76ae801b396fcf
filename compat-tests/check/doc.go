// Package check judges a history: what idempotent producers sent and were told, against what the log holds in the end
// and what consumers saw meanwhile. It knows no network, so that it can be shown to catch what it is there to catch.
package check
