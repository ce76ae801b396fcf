package partition

// Parts is how many partitions the table remembers.
func (t *Table) Parts() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.parts)
}
