package group

import "context"

// Pending is a request on its way.
type Pending[T any] struct{ call *call }

// Wait returns the answer when it is there. Errors are, or wrap, *kerr.Error, those of
// Kafka's protocol, or that of ctx if it ended first; the request itself is not
// withdrawn then.
func (p Pending[T]) Wait(ctx context.Context) (T, error) {
	var answer T
	select {
	case <-p.call.done:
	case <-ctx.Done():
		return answer, ctx.Err()
	}
	if p.call.answer != nil {
		answer = p.call.answer.(T)
	}
	return answer, p.call.err
}

// call is a request that is to be answered once. The machine keeps calls and
// hands them back; it never looks inside.
type call struct {
	done   chan struct{} // closed when the fields below are set
	answer any           // nil, or of the type that the request's Pending has
	err    error
}

func newCall() *call { return &call{done: make(chan struct{})} }

func (c *call) complete(answer any, err error) {
	c.answer, c.err = answer, err
	close(c.done)
}
