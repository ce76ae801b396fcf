package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// modulePath is the module whose import directions are checked.
const modulePath = "github.com/streamhouse/streamhouse"

// file is one Go source file of the repository.
type file struct {
	path   string // relative to the repository's root, with slashes
	module string // folder of its module relative to the root, "." for the main one
	syntax *ast.File
	fset   *token.FileSet
}

func (f *file) isTest() bool { return strings.HasSuffix(f.path, "_test.go") }

// pkg is the file's package below its module's path.
func (f *file) pkg() string { return path.Dir(f.path) }

func (f *file) imports() []string {
	var paths []string
	for _, spec := range f.syntax.Imports {
		if imported, err := strconv.Unquote(spec.Path.Value); err == nil {
			paths = append(paths, imported)
		}
	}
	return paths
}

// at formats a finding at a place in the file.
func (f *file) at(node ast.Node, format string, args ...any) string {
	line := f.fset.Position(node.Pos()).Line
	return fmt.Sprintf("%s:%d: %s", f.path, line, fmt.Sprintf(format, args...))
}

// repositoryRoot is the nearest folder above the working folder with the main
// module's go.mod.
func repositoryRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(text), "module "+modulePath+"\n") {
			return dir, nil
		}
	}
	return "", fmt.Errorf("no go.mod of %s above the working folder", modulePath)
}

// readSource parses all Go files that people wrote, in every module of the
// repository. Folders that the go command ignores are left out.
func readSource(root fs.FS) ([]*file, error) {
	var files []*file
	modules := []string{"."}
	err := fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			base := path.Base(name)
			if name != "." && (strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") || base == "testdata" || base == "vendor") {
				return fs.SkipDir
			}
			if _, err := fs.Stat(root, path.Join(name, "go.mod")); err == nil && name != "." {
				modules = append(modules, name)
			}
			return nil
		}
		if path.Ext(name) != ".go" {
			return nil
		}
		f, err := parse(root, name)
		if err != nil {
			return err
		}
		if !ast.IsGenerated(f.syntax) {
			files = append(files, f)
		}
		return nil
	})
	for _, f := range files {
		owner := slices.IndexFunc(modules, func(m string) bool { return m != "." && strings.HasPrefix(f.path, m+"/") })
		f.module = modules[max(owner, 0)]
	}
	return files, err
}

func parse(root fs.FS, name string) (*file, error) {
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return nil, err
	}
	fset := token.NewFileSet()
	syntax, err := parser.ParseFile(fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	return &file{path: name, syntax: syntax, fset: fset}, nil
}
