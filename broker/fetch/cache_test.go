package fetch

import (
	"errors"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/streamhouse/streamhouse/segment"
)

// check fails if the cache's books are wrong.
func (c *cache) check(t *rapid.T, underWay []*piece) {
	var weight int64
	reachable := map[*piece]bool{}
	for key, p := range c.pieces {
		if !p.has(key) {
			t.Fatalf("block %d of %s is named to a piece of %d blocks from %d of %s", key.n, key.object, p.count, p.first, p.object)
		}
		reachable[p] = true
	}
	for e := c.order.Front(); e != nil; e = e.Next() {
		p := e.Value.(*piece)
		if p.place != e || p.err != nil || len(p.data) == 0 {
			t.Fatalf("a cached piece: %+v", p)
		}
		weight += p.weight()
		delete(reachable, p)
	}
	for _, p := range underWay {
		if p.place != nil {
			t.Fatal("a piece is cached before it came")
		}
		delete(reachable, p)
	}
	if len(reachable) > 0 {
		t.Fatalf("%d pieces are named that neither came nor will come", len(reachable))
	}
	if weight != c.weight || weight > c.limit {
		t.Fatalf("%d bytes are counted, there are %d of %d", c.weight, weight, c.limit)
	}
}

func TestCacheKeepsItsBooks(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := cache{limit: rapid.Int64Range(0, 4000).Draw(t, "limit"), pieces: map[blockKey]*piece{}}
		objects := []segment.ID{uuid.UUID{1}, uuid.UUID{2}, uuid.UUID{3}}
		block := rapid.Int64Range(0, 7)
		var underWay []*piece
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) { c.check(t, underWay) },
			"claim": func(t *rapid.T) {
				from := block.Draw(t, "from")
				to := rapid.Int64Range(from+1, 8).Draw(t, "to")
				object := rapid.SampledFrom(objects).Draw(t, "object")
				trust := rapid.SampledFrom([]trust{trustAll, trustCame, trustStore}).Draw(t, "trust")
				owner := ""
				if trust == trustAll {
					owner = rapid.SampledFrom([]string{"", "peer"}).Draw(t, "owner")
				}
				all, claimed := c.claim(nil, object, from, to, trust, func() string { return owner })
				underWay = append(underWay, claimed...)
				h := held{pieces: all}
				for n := from; n < to; n++ {
					p := h.find(blockKey{object, n})
					if p == nil {
						t.Fatalf("claimed %d to %d, and have no piece for %d", from, to, n)
					}
					if p.owner != "" && (trust == trustStore || trust == trustCame && p.place == nil) {
						t.Fatalf("with trust %d, got a piece that %q is asked for", trust, p.owner)
					}
				}
			},
			"land": func(t *rapid.T) {
				if len(underWay) == 0 {
					return
				}
				i := rapid.IntRange(0, len(underWay)-1).Draw(t, "which")
				p := underWay[i]
				underWay = append(underWay[:i:i], underWay[i+1:]...)
				if rapid.Bool().Draw(t, "failed") {
					c.land(p, nil, errors.New("no"))
				} else {
					c.land(p, make([]byte, p.count*100), nil)
				}
				<-p.done
			},
			"put": func(t *rapid.T) {
				c.put(&piece{object: rapid.SampledFrom(objects).Draw(t, "object"), count: 8, data: make([]byte, 800)})
			},
			"forget": func(t *rapid.T) {
				key := blockKey{rapid.SampledFrom(objects).Draw(t, "object"), block.Draw(t, "block")}
				c.forget(key)
				if p := c.pieces[key]; p != nil && p.place != nil {
					t.Fatal("a forgotten block is still cached")
				}
			},
		})
	})
}

func TestCacheDropsWhatWasUsedLongestAgo(t *testing.T) {
	t.Parallel()
	one := (&piece{count: 1, data: make([]byte, 100)}).weight()
	c := cache{limit: 2 * one, pieces: map[blockKey]*piece{}}
	land := func(n int64) {
		_, claimed := c.claim(nil, segment.ID{}, n, n+1, trustAll, func() string { return "" })
		for _, p := range claimed {
			c.land(p, make([]byte, 100), nil)
		}
	}
	land(0)
	land(1)
	land(0) // used again
	land(2)
	for n, want := range []bool{true, false, true} {
		if got := c.pieces[blockKey{n: int64(n)}] != nil; got != want {
			t.Errorf("block %d is cached: %v", n, got)
		}
	}
}
