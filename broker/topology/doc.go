// Package topology is an agent's view of the cluster: agents, topics,
// leaderships and cluster-wide configuration.
//
// The view is an immutable Snapshot behind an atomic pointer, kept by one
// Watcher. Nothing else asks the store for these facts. The watcher looks at
// the store's version at a slow, steady pace; whoever needs a fresher view (a
// Metadata request, a topic that is not known here yet) asks for one with
// Refresh, and all who ask at once share one round trip. So a quiet cluster
// costs almost nothing and no client waits for the pace.
package topology
