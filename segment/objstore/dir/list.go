package dir

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/streamhouse/streamhouse/segment/objstore"
)

// errStop ends a walk whose consumer has had enough.
var errStop = errors.New("stop")

// walk yields the files below a folder in the order of their keys. It holds one
// folder's names at each level.
type walk struct {
	ctx           context.Context
	fsys          fs.FS
	prefix, after string
	yield         func(objstore.Info, error) bool
}

func (w *walk) folder(name string) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	entries, err := fs.ReadDir(w.fsys, name)
	if err != nil {
		if absent(err) {
			return nil // it went away meanwhile
		}
		return classify(err)
	}
	for _, e := range sortByKey(entries) {
		key := path.Join(name, e.Name())
		switch {
		case strings.HasPrefix(e.Name(), "."):
		case e.IsDir():
			err = w.descend(key)
		default:
			err = w.file(key, e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// descend walks the folder, if it can have keys that are asked for.
func (w *walk) descend(folder string) error {
	keys := folder + "/" // what all keys below begin with
	if !strings.HasPrefix(keys, w.prefix) && !strings.HasPrefix(w.prefix, keys) {
		return nil
	}
	if keys < w.after && !strings.HasPrefix(w.after, keys) {
		return nil
	}
	return w.folder(folder)
}

func (w *walk) file(key string, e fs.DirEntry) error {
	if key <= w.after || !strings.HasPrefix(key, w.prefix) {
		return nil
	}
	info, err := e.Info()
	if err != nil {
		if absent(err) {
			return nil // it went away meanwhile
		}
		return classify(err)
	}
	if !w.yield(describe(key, info), nil) {
		return errStop
	}
	return nil
}

// sortByKey sorts the entries of a folder as the keys that they stand for: a
// folder as its name with a slash behind, which a "-" comes before.
func sortByKey(entries []fs.DirEntry) []fs.DirEntry {
	name := func(e fs.DirEntry) string {
		if e.IsDir() {
			return e.Name() + "/"
		}
		return e.Name()
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return cmp.Compare(name(a), name(b)) })
	return entries
}
