// Package dir keeps objects as files of a local directory.
//
// An object becomes visible by link(2) and by nothing else: its bytes are
// written to a file in the folder .tmp and synced there, the name is linked to
// it, which fails if the name is taken, and the folder of the name is synced.
// So a crash at any point leaves the whole object or none, and at most a file
// in .tmp, which the next Open removes.
package dir

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/streamhouse/streamhouse/segment/objstore"
)

const (
	tmpDir   = ".tmp" // no key can begin with a dot
	lockFile = tmpDir + "/lock"

	dirMode  = 0o755
	fileMode = 0o644
)

// Store is a driver for a directory of a file system that has hard links and
// honours fsync. Several processes may use one directory.
//
// File operations are not interruptible: a call whose context ends while the
// disk hangs returns when the disk does.
type Store struct {
	name string
	root *os.Root
	lock *os.File // held shared, from Open to Close

	mu sync.Mutex
	// synced holds the folders whose own names are known to be on disk. Files
	// may be linked only into these, or a crash could take the folder with
	// them. It grows with the folders, of which segments have 256.
	synced map[string]struct{}
}

var _ objstore.Store = (*Store)(nil)

// Open opens the directory name and makes it if it is not there. It removes
// what a crash left in .tmp, unless another process uses the directory.
func Open(name string) (*Store, error) {
	s, err := open(name)
	if err != nil {
		return nil, fmt.Errorf("object directory %s: %w: it must be a directory that this user may write", name, err)
	}
	return s, nil
}

func open(name string) (*Store, error) {
	if err := makeDirectory(name); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	s := &Store{name: name, root: root, synced: map[string]struct{}{".": {}}}
	if err := s.claim(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// makeDirectory makes the directory and those above it, and has the names of
// those that it made on disk.
func makeDirectory(name string) error {
	if info, err := os.Stat(name); err == nil && info.IsDir() {
		return nil
	}
	parent := filepath.Dir(filepath.Clean(name))
	if err := makeDirectory(parent); err != nil {
		return err
	}
	if err := os.Mkdir(name, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	f, err := os.Open(parent)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// claim takes the directory's lock and cleans up if nobody else has it.
func (s *Store) claim() error {
	if err := s.root.Mkdir(tmpDir, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	var err error
	if s.lock, err = s.root.OpenFile(lockFile, os.O_CREATE|os.O_RDWR, fileMode); err != nil {
		return err
	}
	// Alone, nobody can be writing to the files in .tmp.
	fd := int(s.lock.Fd())
	if syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB) == nil {
		if err := s.removeLeftovers(); err != nil {
			return err
		}
	}
	if err := syscall.Flock(fd, syscall.LOCK_SH); err != nil {
		return fmt.Errorf("lock %s: %w", lockFile, err)
	}
	return nil
}

func (s *Store) removeLeftovers() error {
	entries, err := fs.ReadDir(s.root.FS(), tmpDir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if name := path.Join(tmpDir, e.Name()); name != lockFile {
			if err := s.root.Remove(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// Close gives the directory up. The store cannot be used afterwards.
func (s *Store) Close() error {
	err := s.root.Close()
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
	}
	return err
}

// String names the store in logs.
func (s *Store) String() string { return "file://" + s.name }

// Put implements objstore.Store.
func (s *Store) Put(ctx context.Context, key string, body []byte) error {
	if err := objstore.CheckPut(key, body); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	tmp, err := s.writeTemporary(body)
	if err != nil {
		return fmt.Errorf("put %s: %w", key, classify(err))
	}
	err = s.publish(tmp, key)
	// What cannot be removed here is removed by the next Open.
	_ = s.root.Remove(tmp)
	if err != nil {
		return fmt.Errorf("put %s: %w", key, classify(err))
	}
	return nil
}

// writeTemporary returns the name of a new file in .tmp that has body on disk.
func (s *Store) writeTemporary(body []byte) (string, error) {
	name := path.Join(tmpDir, rand.Text())
	f, err := s.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, fileMode)
	if err != nil {
		return "", err
	}
	_, err = f.Write(body)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		_ = s.root.Remove(name)
		return "", err
	}
	return name, nil
}

// publish gives the file tmp, whose bytes are on disk, the name key.
//
// The folder is synced even if key is there already: whoever linked it may not
// have come that far, and an attempt that is made again takes ErrExists for the
// success of an earlier one.
func (s *Store) publish(tmp, key string) error {
	folder := path.Dir(key)
	if err := s.ensureFolder(folder); err != nil {
		return err
	}
	err := s.root.Link(tmp, key)
	if absent(err) {
		s.forgetFolders() // somebody else removed the folder
		return fmt.Errorf("%w: %w", objstore.ErrUnavailable, err)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if syncErr := s.sync(folder); syncErr != nil {
		return syncErr
	}
	return err
}

// ensureFolder makes folder and those above it, and has their names on disk.
func (s *Store) ensureFolder(folder string) error {
	s.mu.Lock()
	_, known := s.synced[folder]
	s.mu.Unlock()
	if known {
		return nil
	}
	parent := path.Dir(folder)
	if err := s.ensureFolder(parent); err != nil {
		return err
	}
	if err := s.root.Mkdir(folder, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := s.sync(parent); err != nil {
		return err
	}
	s.mu.Lock()
	s.synced[folder] = struct{}{}
	s.mu.Unlock()
	return nil
}

func (s *Store) forgetFolders() {
	s.mu.Lock()
	clear(s.synced)
	s.synced["."] = struct{}{}
	s.mu.Unlock()
}

// sync has the names in folder on disk.
func (s *Store) sync(folder string) error {
	f, err := s.root.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Get implements objstore.Store.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) ([]byte, error) {
	if err := objstore.CheckGet(key, offset, length); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	data, err := s.read(key, offset, length)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, classify(err))
	}
	return data, nil
}

func (s *Store) read(key string, offset, length int64) ([]byte, error) {
	f, err := s.root.Open(key)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, objstore.ErrNotFound
	}
	size := info.Size()
	if length == -1 {
		length = size - offset
	}
	if length <= 0 || length > size-offset {
		return nil, fmt.Errorf("%w: %d bytes at %d of %d", objstore.ErrRange, length, offset, size)
	}
	data := make([]byte, length)
	if _, err := io.ReadFull(io.NewSectionReader(f, offset, length), data); err != nil {
		return nil, err
	}
	return data, nil
}

// Head implements objstore.Store.
func (s *Store) Head(ctx context.Context, key string) (objstore.Info, error) {
	if err := objstore.CheckKey(key); err != nil {
		return objstore.Info{}, err
	}
	if err := ctx.Err(); err != nil {
		return objstore.Info{}, fmt.Errorf("head %s: %w", key, err)
	}
	info, err := s.root.Stat(key)
	if err == nil && info.IsDir() {
		err = objstore.ErrNotFound
	}
	if err != nil {
		return objstore.Info{}, fmt.Errorf("head %s: %w", key, classify(err))
	}
	return describe(key, info), nil
}

func describe(key string, info fs.FileInfo) objstore.Info {
	return objstore.Info{Key: key, Size: info.Size(), ModTime: info.ModTime()}
}

// List implements objstore.Store.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		w := walk{ctx: ctx, fsys: s.root.FS(), prefix: prefix, after: after, yield: yield}
		if err := w.folder("."); err != nil && !errors.Is(err, errStop) {
			yield(objstore.Info{}, fmt.Errorf("list %q: %w", prefix, err))
		}
	}
}

// Delete implements objstore.Store. It leaves folders as they are. The removals
// are not synced: a crash may bring an object back, as if it had not come to
// its deletion yet.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	var errs []error
	for _, key := range keys {
		if err := s.remove(ctx, key); err != nil {
			errs = append(errs, &objstore.KeyError{Key: key, Err: err})
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	return nil
}

func (s *Store) remove(ctx context.Context, key string) error {
	if err := objstore.CheckKey(key); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	// Root.Remove would remove an empty folder too.
	if info, err := s.root.Lstat(key); err == nil && info.IsDir() {
		return nil
	}
	if err := s.root.Remove(key); err != nil && !absent(err) {
		return classify(err)
	}
	return nil
}

// Check implements objstore.Store.
func (s *Store) Check(ctx context.Context) error {
	if err := objstore.Probe(ctx, s); err != nil {
		return fmt.Errorf("object directory %s: %w: "+
			"it must be a directory with free space, on a file system with hard links, that this user may write", s.name, err)
	}
	return nil
}

// absent says whether err means that there is no such file: a path through a
// file, where a folder would have to be, names none.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// classify gives an error of the operating system its meaning. A full or broken
// disk may be repaired while the agent runs; a permission is a mistake.
func classify(err error) error {
	switch {
	case errors.Is(err, objstore.ErrNotFound), errors.Is(err, objstore.ErrRange), errors.Is(err, objstore.ErrUnavailable):
		return err
	case absent(err):
		return fmt.Errorf("%w: %w", objstore.ErrNotFound, err)
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("%w: %w", objstore.ErrExists, err)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, fs.ErrClosed), errors.Is(err, syscall.EISDIR):
		return err
	}
	return fmt.Errorf("%w: %w", objstore.ErrUnavailable, err)
}
