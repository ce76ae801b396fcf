package group

import (
	"errors"
	"maps"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/streamhouse/streamhouse/broker/group/assignor"
)

// refresh begins a new epoch if a subscription has changed, which reason names, or
// the topics that are subscribed to; and makes a target for an epoch that has
// none.
//
// A view of the topics that is older than the one before, as that of an agent may
// be which has just become the coordinator, is not looked at: what is missing
// there would be taken from its owners.
func (g *consumerGroup) refresh(subscription bool, reason string) {
	if subscription || g.epoch == 0 {
		g.bump(reason)
	}
	view := g.m.view()
	if g.outdated(view) {
		return
	}
	if view.Changed() > g.topicsVersion && g.epoch == g.targetEpoch {
		g.topicsVersion = view.Version()
		if _, partitions := g.subscribed(view); !maps.Equal(partitions, g.partitions) {
			g.bump("topics have changed")
		}
	}
	if g.epoch > g.targetEpoch {
		g.assign(view)
	}
}

// outdated says whether the group knows of newer topics than the view.
func (g *consumerGroup) outdated(view View) bool { return view.Version() < g.topicsVersion }

// assign makes the target of the group's epoch.
func (g *consumerGroup) assign(view View) {
	members := g.sorted()
	topics, partitions := g.subscribed(view)
	specs := make([]assignor.Member, len(members))
	for i, mb := range members {
		specs[i] = assignor.Member{ID: mb.id, InstanceID: mb.instance, Topics: topics[mb.subscription()], Target: mb.target}
	}
	for i, target := range assignor.ByName[g.assignor()](specs, partitions) {
		members[i].target = target
	}
	g.targetEpoch, g.topicsVersion, g.partitions = g.epoch, view.Version(), partitions
	g.changed()
	g.settle()
}

// assignor is the assignor that most members prefer; of as many votes, the one
// that the configuration names first counts, and that too if nobody votes.
func (g *consumerGroup) assignor() string {
	votes := make(map[string]int)
	for _, mb := range g.members {
		if mb.assignor != "" {
			votes[mb.assignor]++
		}
	}
	best := g.m.cfg.ConsumerAssignors[0]
	for _, name := range g.m.cfg.ConsumerAssignors {
		if votes[name] > votes[best] {
			best = name
		}
	}
	return best
}

// subscription is what a member subscribes to, as a key: most members of a group
// subscribe to the same.
func (mb *consumerMember) subscription() string {
	return strings.Join(mb.topics, "\x00") + "\x00\x00" + mb.regex
}

// subscribed returns the topics of each subscription, ascending by id, and how
// many partitions each of all these topics has.
func (g *consumerGroup) subscribed(view View) (topics map[string][]uuid.UUID, partitions map[uuid.UUID]int32) {
	topics, partitions = make(map[string][]uuid.UUID), make(map[uuid.UUID]int32)
	for _, mb := range g.members {
		key := mb.subscription()
		if _, done := topics[key]; done {
			continue
		}
		list := []uuid.UUID{}
		add := func(name string) {
			if id, n, ok := view.Lookup(name); ok {
				list = append(list, id)
				partitions[id] = n
			}
		}
		for _, name := range mb.topics {
			add(name)
		}
		if p := g.pattern(mb.regex); p != nil {
			for _, name := range p.find(view) {
				add(name)
			}
		}
		slices.SortFunc(list, func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) })
		topics[key] = slices.Compact(list)
	}
	return topics, partitions
}

// subscribes says whether the member subscribes to the topic.
func (g *consumerGroup) subscribes(mb *consumerMember, topic string) bool {
	if _, found := slices.BinarySearch(mb.topics, topic); found {
		return true
	}
	p := g.pattern(mb.regex)
	return p != nil && p.MatchString(topic)
}

// pattern is a regular expression that matches whole names of topics.
type pattern struct {
	*regexp.Regexp
	found []string // among the topics of a view
	as    int64    // of which version; 0 for none
}

// find returns the topics that match.
func (p *pattern) find(view View) []string {
	if p.as == 0 || view.Changed() > p.as {
		p.found, p.as = nil, view.Version()
		for _, name := range view.Names() {
			if p.MatchString(name) {
				p.found = append(p.found, name)
			}
		}
	}
	return p.found
}

// pattern returns the regular expression of a subscription, nil for none.
func (g *consumerGroup) pattern(expression string) *pattern {
	if expression == "" {
		return nil
	}
	p, known := g.patterns[expression]
	if !known {
		if len(g.patterns) > len(g.members) {
			clear(g.patterns) // or expressions that members come and go with would pile up
		}
		p, _ = compilePattern(expression) // was checked when it came
		g.patterns[expression] = p
	}
	return p
}

// checkRegex refuses a heartbeat with a regular expression that is not one.
func (g *consumerGroup) checkRegex(r *ConsumerHeartbeatRequest) error {
	if r.Regex == nil || *r.Regex == "" || g.patterns[*r.Regex] != nil {
		return nil
	}
	if _, err := compilePattern(*r.Regex); err != nil {
		return refuse(kerr.InvalidRegularExpression, "SubscribedTopicRegex `%s` is not a valid regular expression: %v.", *r.Regex, err)
	}
	return nil
}

// maxPattern is how many instructions a regular expression may have, of which
// each may be looked at for each character of each topic's name.
const maxPattern = 250

var errPatternTooLarge = errors.New("it is too large")

// compilePattern compiles an expression of RE2's syntax, which is Go's too.
func compilePattern(expression string) (*pattern, error) {
	parsed, err := syntax.Parse(expression, syntax.Perl)
	if err != nil {
		return nil, err
	}
	if instructions(parsed) > maxPattern {
		return nil, errPatternTooLarge
	}
	re, err := regexp.Compile(`\A(?:` + expression + `)\z`)
	if err != nil {
		return nil, err
	}
	return &pattern{Regexp: re}, nil
}

// instructions is about how many a compiled expression has, with its repetitions
// written out. The parser bounds these, so that it does not overflow.
func instructions(re *syntax.Regexp) int {
	n := 1
	if re.Op == syntax.OpLiteral { // a class of characters is one, however many it has
		n = len(re.Rune)
	}
	for _, sub := range re.Sub {
		n += instructions(sub)
	}
	if re.Op == syntax.OpRepeat {
		n *= max(1, re.Min, re.Max)
	}
	return n
}
