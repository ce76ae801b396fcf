// Package peers notices that other agents are dead, within seconds and without
// asking the store while they live.
//
// Each agent is watched by a few others, on which all agree (Watchers). A watcher
// keeps a connection to the Kafka listener of the agent, which is what clients
// need of it, and asks once a second for its versions. When that fails, it asks
// the store to bury the agent. The store decides, on evidence of its own: the
// agent's sign of life there is gone, or it does not answer a challenge
// (metadata.Agents). So an agent that only some watchers can't reach lives on,
// and a store that restarts buries nobody. One that lives and that no watcher can
// reach is reported, and finds so itself (package agent).
//
// Nothing depends on any of this for safety: commits are fenced, and a lease ends
// by itself. It only decides how long partitions have no leader.
package peers
