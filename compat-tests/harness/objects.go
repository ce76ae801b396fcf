package harness

import (
	"fmt"
	"net/http"
	"slices"
	"sync"
)

// ObjectUse is what a zone asked of the bucket.
type ObjectUse struct {
	Puts, PutBytes int64
	Gets, GetBytes int64
	// GotAgain is how many of the bytes the zone had got before, and GetsAgain by how many downloads.
	GotAgain, GetsAgain int64
	// Others are requests of other kinds.
	Others int64
}

// Since is what was asked since an earlier look.
func (u ObjectUse) Since(before ObjectUse) ObjectUse {
	return ObjectUse{
		Puts: u.Puts - before.Puts, PutBytes: u.PutBytes - before.PutBytes,
		Gets: u.Gets - before.Gets, GetBytes: u.GetBytes - before.GetBytes,
		GotAgain: u.GotAgain - before.GotAgain, GetsAgain: u.GetsAgain - before.GetsAgain,
		Others: u.Others - before.Others,
	}
}

func (u ObjectUse) String() string {
	return fmt.Sprintf("%d PUTs of %d bytes, %d GETs of %d bytes (%d of them, %d bytes, again), %d others",
		u.Puts, u.PutBytes, u.Gets, u.GetBytes, u.GetsAgain, u.GotAgain, u.Others)
}

// objectUse counts what is asked of a bucket. Its methods may be called by any number of goroutines.
type objectUse struct {
	mu  sync.Mutex
	use ObjectUse
	got map[string][]span // by the object's path: disjoint, in order
}

// span is a range of an object's bytes, without its end.
type span struct{ from, to int64 }

func newObjectUse() *objectUse { return &objectUse{got: make(map[string][]span)} }

func (u *objectUse) read() ObjectUse {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.use
}

// saw counts a request by its answer.
func (u *objectUse) saw(response *http.Response) {
	u.mu.Lock()
	defer u.mu.Unlock()
	request := response.Request
	switch ok := response.StatusCode/100 == 2; {
	case ok && request.Method == http.MethodPut:
		u.use.Puts++
		u.use.PutBytes += request.ContentLength
	case ok && request.Method == http.MethodGet && request.URL.Query().Get("list-type") == "":
		s := span{0, response.ContentLength}
		if _, err := fmt.Sscanf(response.Header.Get("Content-Range"), "bytes %d-%d/", &s.from, &s.to); err == nil {
			s.to++
		}
		again := u.add(request.URL.Path, s)
		u.use.Gets++
		u.use.GetBytes += s.to - s.from
		u.use.GotAgain += again
		if again > 0 {
			u.use.GetsAgain++
		}
	default:
		u.use.Others++
	}
}

// add takes note of bytes that were got, and returns how many of them had been got before.
func (u *objectUse) add(object string, s span) (again int64) {
	var spans []span
	for _, had := range u.got[object] {
		if had.to < s.from || s.to < had.from {
			spans = append(spans, had)
			continue
		}
		again += max(0, min(had.to, s.to)-max(had.from, s.from))
		s = span{min(had.from, s.from), max(had.to, s.to)}
	}
	u.got[object] = append(spans, s)
	slices.SortFunc(u.got[object], func(a, b span) int { return int(max(min(a.from-b.from, 1), -1)) })
	return again
}
