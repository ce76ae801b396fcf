// Package archtest holds the house rules that a test can enforce: which package
// may import which, how long functions and files may be, and what tests must not
// do. The tables in rules.go are the rules, each with its reason; a change of the
// architecture starts there.
package archtest
