package sim

import (
	"sync/atomic"
	"time"
)

// faults are what is wrong with the stores now, and how often anything was.
type faults struct {
	databaseLatency, bucketLatency atomic.Int64 // ns, of one way
	databaseOneIn, bucketOneIn     atomic.Int64 // of so many calls one fails; 0: none
	callsOneIn                     atomic.Int64 // of so many messages between agents one breaks a connection; 0: none
	databaseDown, bucketDown       atomic.Bool  // calls are refused

	calls, puts                         atomic.Int64
	refused, lost, late, answerLost     atomic.Int64
	freezes, kills, drains, cuts        atomic.Int64
	replacements                        atomic.Int64
	databaseRestarts, outages, slowness atomic.Int64
	burials, handOvers                  atomic.Int64
	broken, claims, foundCommitted      atomic.Int64
}

// fate is what becomes of a call.
type fate uint8

const (
	fine       fate = iota
	refused         // it was not sent
	lost            // it does not arrive
	late            // it arrives when the caller has been told that it failed
	answerLost      // it has its effect, and the caller is told that it failed
)

const (
	usualDatabaseLatency = 400 * time.Microsecond
	usualBucketLatency   = 8 * time.Millisecond
)

// reset ends all faults of the stores.
func (f *faults) reset() {
	f.databaseLatency.Store(int64(usualDatabaseLatency))
	f.bucketLatency.Store(int64(usualBucketLatency))
	f.databaseOneIn.Store(0)
	f.bucketOneIn.Store(0)
	f.callsOneIn.Store(0)
	f.databaseDown.Store(false)
	f.bucketDown.Store(false)
}

func (f *faults) databaseFate(d *dice) fate { return f.fate(d, &f.databaseDown, &f.databaseOneIn) }

func (f *faults) bucketFate(d *dice) fate { return f.fate(d, &f.bucketDown, &f.bucketOneIn) }

// callFate is what becomes of a message of a call: fine, lost or answerLost.
func (f *faults) callFate(d *dice) fate {
	if !d.oneIn(int(f.callsOneIn.Load())) {
		return fine
	}
	f.broken.Add(1)
	if d.oneIn(2) {
		return lost
	}
	return answerLost
}

func (f *faults) fate(d *dice, down *atomic.Bool, oneIn *atomic.Int64) fate {
	if down.Load() {
		f.refused.Add(1)
		return refused
	}
	if !d.oneIn(int(oneIn.Load())) {
		return fine
	}
	is := fate(1 + d.intN(4))
	switch is {
	case refused:
		f.refused.Add(1)
	case lost:
		f.lost.Add(1)
	case late:
		f.late.Add(1)
	case answerLost:
		f.answerLost.Add(1)
	}
	return is
}

// zombies has always one agent stand still, mostly for longer than its lease.
func (w *world) zombies() {
	d := w.dice("zombie", 0)
	for w.loading() {
		s := w.anySite(d)
		if s == nil {
			w.rest(d.between(10*time.Millisecond, 100*time.Millisecond))
			continue
		}
		w.freeze(s, d)
	}
}

func (w *world) freeze(s *site, d *dice) {
	still := d.between(w.settings.lease.Duration/2, 2*w.settings.lease.Duration)
	w.faults.freezes.Add(1)
	w.note("%s freezes for %s", s, still)
	s.frozen.shut()
	w.rest(still)
	s.frozen.open()
	w.note("%s thaws", s)
}

// nemesis does harm until the load ends.
func (w *world) nemesis() {
	d := w.dice("nemesis", 0)
	for w.loading() {
		w.rest(d.between(100*time.Millisecond, w.settings.load/8))
		w.harm(d)
	}
}

// harm does one thing, which goes on by itself.
func (w *world) harm(d *dice) {
	lasts := d.between(200*time.Millisecond, 3*w.settings.lease.Duration/2)
	s := w.anySite(d)
	if s == nil {
		return
	}
	switch d.intN(20) {
	case 0, 1:
		w.faults.kills.Add(1)
		w.note("%s is killed", s)
		s.die()
	case 2, 3:
		w.faults.drains.Add(1)
		w.note("%s is drained", s)
		drain, _ := w.at(s)
		drain()
	case 4:
		w.cut(s, "the database", &s.noStore, lasts)
	case 5:
		w.cut(s, "the bucket", &s.noObjects, lasts)
	case 6:
		w.cut(s, "the network", &s.noNetwork, lasts)
	case 7:
		w.faults.databaseRestarts.Add(1)
		w.note("the database restarts")
		w.db.restartServer()
		w.during(lasts/8, "database refuses", func() { w.faults.databaseDown.Store(true) }, func() { w.faults.databaseDown.Store(false) })
	case 8:
		w.faults.outages.Add(1)
		w.during(lasts/2, "database hangs", w.noDatabase.shut, w.noDatabase.open)
	case 9:
		w.faults.outages.Add(1)
		w.during(lasts/2, "bucket hangs", w.noBucket.shut, w.noBucket.open)
	case 10:
		w.faults.slowness.Add(1)
		slow := int64(d.between(20*time.Millisecond, 2*time.Second))
		w.during(lasts, "database is slow", func() { w.faults.databaseLatency.Store(slow) }, func() { w.faults.databaseLatency.Store(int64(usualDatabaseLatency)) })
	case 11:
		w.faults.slowness.Add(1)
		slow := int64(d.between(100*time.Millisecond, 4*time.Second))
		w.during(lasts, "bucket is slow", func() { w.faults.bucketLatency.Store(slow) }, func() { w.faults.bucketLatency.Store(int64(usualBucketLatency)) })
	case 12:
		oneIn := int64(2 + d.intN(20))
		w.during(lasts, "database loses calls", func() { w.faults.databaseOneIn.Store(oneIn) }, func() { w.faults.databaseOneIn.Store(w.settings.databaseOneIn) })
	case 13:
		oneIn := int64(2 + d.intN(8))
		w.during(lasts, "bucket loses calls", func() { w.faults.bucketOneIn.Store(oneIn) }, func() { w.faults.bucketOneIn.Store(w.settings.bucketOneIn) })
	case 14, 15:
		w.replaceFrozen(s, lasts)
	case 16, 17:
		w.cut(s, "calls between agents", &s.noCalls, lasts)
	case 18, 19:
		oneIn := int64(2 + d.intN(30))
		w.during(lasts, "calls break off", func() { w.faults.callsOneIn.Store(oneIn) }, func() { w.faults.callsOneIn.Store(w.settings.callsOneIn) })
	}
}

// replaceFrozen has another life begin at the place of one that stands still, and
// goes on later, as it happens when a machine is lost and comes back.
func (w *world) replaceFrozen(s *site, lasts time.Duration) {
	_, replace := w.at(s)
	w.faults.replacements.Add(1)
	w.during(lasts, s.String()+" freezes, and is replaced", s.frozen.shut, s.frozen.open)
	replace()
}

// cut cuts a site off from something.
func (w *world) cut(s *site, from string, by *gate, lasts time.Duration) {
	w.faults.cuts.Add(1)
	w.during(lasts, s.String()+" is cut off from "+from, by.shut, by.open)
	if by == &s.noStore {
		w.harms.Go(func() {
			if w.rest(s.random.between(3500*time.Millisecond, 4600*time.Millisecond)); by.isShut() {
				s.silence()
			}
		})
	}
}

// during makes something bad for a time, or until the load ends.
func (w *world) during(lasts time.Duration, what string, begin, end func()) {
	w.note("%s for %s", what, lasts)
	begin()
	w.harms.Go(func() {
		w.rest(lasts)
		end()
		w.note("no more: %s", what)
	})
}

// counts are the numbers of faults, by kind.
func (f *faults) counts() map[string]int64 {
	return map[string]int64{
		"store calls": f.calls.Load(), "uploads": f.puts.Load(),
		"calls refused": f.refused.Load(), "calls lost": f.lost.Load(), "calls late": f.late.Load(), "answers lost": f.answerLost.Load(),
		"freezes": f.freezes.Load(), "kills": f.kills.Load(), "drains": f.drains.Load(), "cuts": f.cuts.Load(), "replacements": f.replacements.Load(),
		"database restarts": f.databaseRestarts.Load(), "outages": f.outages.Load(), "slow stores": f.slowness.Load(),
		"calls between agents broken off": f.broken.Load(),
		"parts claimed for their outcome": f.claims.Load(), "of these found committed": f.foundCommitted.Load(),
		"burials": f.burials.Load(), "leases handed over": f.handOvers.Load(),
	}
}
