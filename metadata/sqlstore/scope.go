package sqlstore

import (
	"strings"

	"github.com/streamhouse/streamhouse/metadata"
)

// Names that clients give, of consumer groups and resources, are keys in tables that
// all agent groups share: those of the default group as they are, those of others
// behind the group's name, between two marks. So no name of the default group may
// begin with a mark: one that does is put behind marks too, with nothing between. (Keys
// that have the agent group in a column of its own would be unknown to the release
// before, which works on the same tables.)
const scopeMark = "\x01"

// scoped returns the key of a name of the store's agent group.
func (s *Store) scoped(name string) string {
	if s.group == metadata.DefaultAgentGroup && !strings.HasPrefix(name, scopeMark) {
		return name
	}
	return scopeMark + s.group + scopeMark + name
}

// unscoped returns the name behind a key; false if it is of another agent group.
func (s *Store) unscoped(key string) (name string, own bool) {
	rest, marked := strings.CutPrefix(key, scopeMark)
	if !marked {
		return key, s.group == metadata.DefaultAgentGroup
	}
	group, name, _ := strings.Cut(rest, scopeMark)
	return name, group == s.group
}

// scopedAll returns the keys of names.
func (s *Store) scopedAll(names []string) []string {
	keys := make([]string, len(names))
	for i, name := range names {
		keys[i] = s.scoped(name)
	}
	return keys
}
