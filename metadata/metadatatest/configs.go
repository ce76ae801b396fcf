package metadatatest

import (
	"slices"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
)

// resourceIn finds a resource in a topology.
func resourceIn(in *metadata.Topology, r metadata.Resource) *metadata.ResourceConfigs {
	if i := slices.IndexFunc(in.Resources, func(c metadata.ResourceConfigs) bool { return c.Resource == r }); i >= 0 {
		return &in.Resources[i]
	}
	return nil
}

var resourceTests = []test{
	{"a resource's configs are set, removed and replaced, and watchers learn of it", func(e *env) {
		r := metadata.Resource{Type: 32, Name: "grüppe " + uuid.NewString()}
		other := metadata.Resource{Type: 16, Name: r.Name}
		e.ok(e.store.AlterResourceConfigs(e.ctx, other, metadata.ConfigChange{Values: map[string]*string{"a": new("other")}}))
		for _, c := range []struct {
			change metadata.ConfigChange
			want   map[string]string
		}{
			{metadata.ConfigChange{Values: map[string]*string{"a": new("1"), "b": new("")}}, map[string]string{"a": "1", "b": ""}},
			{metadata.ConfigChange{Values: map[string]*string{"a": nil, "c": new("3"), "x": nil}}, map[string]string{"b": "", "c": "3"}},
			{metadata.ConfigChange{Values: map[string]*string{"d": new("4")}, Replace: true}, map[string]string{"d": "4"}},
			{metadata.ConfigChange{Replace: true}, nil},
		} {
			before := must(e.store.Topology(e.ctx, 0))(e).Version
			e.ok(e.store.AlterResourceConfigs(e.ctx, r, c.change))
			got := resourceIn(must(e.store.Topology(e.ctx, before))(e), r)
			if got == nil {
				e.Fatal("the change is not in the topology since")
			}
			e.equal("configs", got.Configs, c.want)
		}
		all := must(e.store.Topology(e.ctx, 0))(e)
		e.equal("without configs", resourceIn(all, r), (*metadata.ResourceConfigs)(nil))
		e.equal("the same name of another type", resourceIn(all, other).Configs, map[string]string{"a": "other"})
		e.equal("nothing is new", len(must(e.store.Topology(e.ctx, all.Version))(e).Resources), 0)
	}},
	{"changes of one resource at once are all made", func(e *env) {
		const changes = 8
		r := metadata.Resource{Type: 4, Name: uuid.NewString()}
		want := map[string]string{}
		for n := range changes {
			want[string(rune('a'+n))] = "on"
		}
		e.together(changes, func(n int) error {
			return e.store.AlterResourceConfigs(e.ctx, r, metadata.ConfigChange{Values: map[string]*string{string(rune('a' + n)): new("on")}})
		})
		e.equal("configs", resourceIn(must(e.store.Topology(e.ctx, 0))(e), r).Configs, want)
	}},
}

var activeProducerTests = []test{
	{"the active producers of a partition are shown with their last batch", func(e *env) {
		terms := e.ledTopic(3)
		a, b := e.newProducer(), e.newProducer()
		e.commit(a.batch(terms[0], 0, 5), b.batch(terms[0], 0, 2), a.batch(terms[1], 0, 1))
		e.commit(a.batch(terms[0], 5, 3))
		keys := []lease.Key{terms[1].Key, {TopicID: uuid.New()}, terms[2].Key, terms[0].Key}
		got := must(e.store.ActiveProducers(e.ctx, keys))(e)
		for _, of := range got {
			for i := range of {
				if of[i].LastUse <= 0 {
					e.Errorf("last use %d", of[i].LastUse)
				}
				of[i].LastUse = 0
			}
		}
		ofFirst := []metadata.ActiveProducer{{ID: a.id, LastSequence: 7}, {ID: b.id, LastSequence: 1}}
		slices.SortFunc(ofFirst, func(x, y metadata.ActiveProducer) int { return int(x.ID - y.ID) })
		e.equal("producers", got, [][]metadata.ActiveProducer{{{ID: a.id, LastSequence: 0}}, nil, {}, ofFirst})
		e.equal("of nothing", len(must(e.store.ActiveProducers(e.ctx, nil))(e)), 0)
	}},
}
