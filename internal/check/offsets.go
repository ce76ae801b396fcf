package check

import (
	"iter"
	"maps"
	"slices"
)

const pageSize = 1 << 12

// offsets says which record is known to be at which offset of a partition, in 4 bytes an offset. It is made of pages,
// so that a nonsensical offset costs one page.
type offsets struct {
	pages map[int64]*[pageSize]ref
	keys  []int64 // of the pages, sorted; nil when a page was added since
}

// get returns the record at an offset, or nothing.
func (o *offsets) get(offset int64) ref {
	if p := o.pages[offset/pageSize]; p != nil && offset >= 0 {
		return p[offset%pageSize]
	}
	return nothing
}

// set puts a record at an offset, which must not be negative.
func (o *offsets) set(offset int64, r ref) {
	p := o.pages[offset/pageSize]
	if p == nil {
		p = new([pageSize]ref)
		if o.pages == nil {
			o.pages = make(map[int64]*[pageSize]ref)
		}
		o.pages[offset/pageSize] = p
		o.keys = nil
	}
	p[offset%pageSize] = r
}

// between returns the records in [from, to) by rising offset.
func (o *offsets) between(from, to int64) iter.Seq2[int64, ref] {
	from = max(from, 0)
	return func(yield func(int64, ref) bool) {
		if o.keys == nil {
			o.keys = slices.Sorted(maps.Keys(o.pages))
		}
		first, _ := slices.BinarySearch(o.keys, from/pageSize)
		for _, key := range o.keys[first:] {
			start := key * pageSize
			if start >= to {
				return
			}
			page := o.pages[key]
			for i := max(from-start, 0); i < min(pageSize, to-start); i++ {
				if page[i] != nothing && !yield(start+i, page[i]) {
					return
				}
			}
		}
	}
}

// first returns the lowest offset in [from, to) at which a record is known to be, or NoOffset.
func (o *offsets) first(from, to int64) int64 {
	for offset := range o.between(from, to) {
		return offset
	}
	return NoOffset
}
