package harness

import "testing"

// Configured prepares an agent with a configuration file, over which env has further settings. Else it is like
// PrepareEmbedded.
func Configured(t testing.TB, id, config string, env ...string) *Agent {
	t.Helper()
	return prepare(t, id, env, "--config", config)
}
