package archtest

import (
	"fmt"
	"go/ast"
	"strings"
)

// checkImports finds imports against the tables. It looks at shipped code of the
// main module only.
func checkImports(f *file) []string {
	if f.isTest() || f.module != "." {
		return nil
	}
	var findings []string
	for i, imported := range f.imports() {
		reason := forbidden(f.pkg(), imported)
		if reason != "" {
			findings = append(findings, f.at(f.syntax.Imports[i], "%s imports %s: %s", f.pkg(), imported, reason))
		}
	}
	return findings
}

// forbidden says why a package of the main module must not import another one;
// empty if it may.
func forbidden(pkg, imported string) string {
	for _, l := range libraries {
		if within(imported, l.module) && !withinAny(pkg, l.only) {
			return l.why
		}
	}
	target, ours := strings.CutPrefix(imported, modulePath+"/")
	if !ours {
		return ""
	}
	own, self := layerOf(pkg)
	switch {
	case own == nil:
		return "the package is in no layer: add it to internal/archtest/rules.go"
	case within(target, self), withinAny(target, own.may), withinAny(target, everywhere):
		return ""
	}
	return own.why
}

// layerOf finds a package's layer, and the folder that the layer's name stands
// for.
func layerOf(pkg string) (best *layer, self string) {
	for i := range layers {
		folder, ok := covers(layers[i].name, pkg)
		// An exact name beats a "*" of the same length.
		if ok && (len(folder) > len(self) || len(folder) == len(self) && !strings.HasSuffix(layers[i].name, "*")) {
			best, self = &layers[i], folder
		}
	}
	return best, self
}

// covers reports whether a layer's name covers a package, and with which folder.
func covers(name, pkg string) (folder string, ok bool) {
	parent, wild := strings.CutSuffix(name, "/*")
	if !wild {
		return name, within(pkg, name)
	}
	rest, ok := strings.CutPrefix(pkg, parent+"/")
	first, _, _ := strings.Cut(rest, "/")
	return parent + "/" + first, ok
}

// within reports whether a path is a folder or lies below it.
func within(path, folder string) bool {
	return path == folder || strings.HasPrefix(path, folder+"/")
}

func withinAny(path string, folders []string) bool {
	for _, folder := range folders {
		if within(path, folder) {
			return true
		}
	}
	return false
}

// checkSize finds functions, files and interfaces that are too large.
func checkSize(f *file) []string {
	if f.isTest() {
		return nil
	}
	var findings []string
	if lines := f.fset.File(f.syntax.Pos()).LineCount(); lines > maxFileLines {
		findings = append(findings, fmt.Sprintf("%s: %d lines, at most %d: split it by what its parts are about", f.path, lines, maxFileLines))
	}
	ast.Inspect(f.syntax, func(node ast.Node) bool {
		switch n := node.(type) {
		case *ast.FuncDecl:
			lines := f.fset.Position(n.End()).Line - f.fset.Position(n.Pos()).Line + 1
			if lines > maxFunctionLines {
				findings = append(findings, f.at(n, "%s has %d lines, at most %d", n.Name.Name, lines, maxFunctionLines))
			}
		case *ast.InterfaceType:
			if methods := ownMethods(n); methods > maxInterfaceMethods {
				findings = append(findings, f.at(n, "an interface of %d methods, at most %d: one noun each", methods, maxInterfaceMethods))
			}
		}
		return true
	})
	return findings
}

// ownMethods counts the methods that an interface declares. Those that it embeds
// are counted where they are declared.
func ownMethods(n *ast.InterfaceType) int {
	methods := 0
	for _, field := range n.Methods.List {
		methods += len(field.Names)
	}
	return methods
}

// checkCalls finds calls that wait blindly, and tests that skip themselves.
func checkCalls(f *file) []string {
	var findings []string
	bubble := false // sleeping is how a test moves the clock of a synctest bubble
	for _, imported := range f.imports() {
		bubble = bubble || imported == "testing/synctest"
	}
	ast.Inspect(f.syntax, func(node ast.Node) bool {
		call, ok := node.(*ast.CallExpr)
		if !ok {
			return true
		}
		selector, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		on, _ := selector.X.(*ast.Ident)
		switch selector.Sel.Name {
		case "Sleep":
			if on != nil && on.Name == "time" && !bubble {
				findings = append(findings, f.at(call, "time.Sleep: wait for a signal, or a timer with a context; in tests also synctest"))
			}
		case "Skip", "Skipf", "SkipNow":
			if f.isTest() && on != nil { // a method of a test, and not of a part under test
				findings = append(findings, f.at(call, "a test that skips itself tests nothing: what it needs is there, or it fails"))
			}
		}
		return true
	})
	return findings
}

// checkPackageComments finds packages that do not say what they are about.
func checkPackageComments(files []*file) []string {
	commented := map[string]bool{}
	for _, f := range files {
		if !f.isTest() {
			commented[f.pkg()] = commented[f.pkg()] || f.syntax.Doc != nil
		}
	}
	var findings []string
	for pkg, ok := range commented {
		if !ok {
			findings = append(findings, pkg+": no package comment: say in doc.go what the package is about")
		}
	}
	return findings
}
