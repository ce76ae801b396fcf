package metadata

import "strings"

// DefaultAgentGroup is the agent group of whoever does not name one.
const DefaultAgentGroup = ""

// MaxAgentGroupLength is how many characters the name of an agent group may have.
const MaxAgentGroupLength = 64

// LegalAgentGroup says whether an agent group may be called that: like a topic, or not
// at all.
func LegalAgentGroup(name string) bool {
	return len(name) <= MaxAgentGroupLength && strings.IndexFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-')
	}) < 0
}
