package lease

// Doubt says that the agent's leases may have been freed, since it stood still
// or was believed dead. They are renewed at once, and those that the store does
// not confirm within a second end: an agent that has been replaced must not go on
// as leader up to a deadline from before. It does not block.
func (m *Manager) Doubt() {
	m.mu.Lock()
	m.machine.doubt(m.clock())
	m.mu.Unlock()
	signal(m.granted) // wakes the renewals
}
