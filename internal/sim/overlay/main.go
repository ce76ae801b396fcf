// Command overlay writes changes to Go's runtime with which a simulation can be
// repeated exactly, for the -overlay flag of the go command: in a bubble of
// testing/synctest, all that the runtime decides by chance follows from the
// bubble's own course.
//
//   - What select chooses, the order of timers that end at one instant, and
//     math/rand are the same in every bubble that asks in the same order.
//   - Maps are iterated in an order that follows from what was put in.
//   - The children of a context are cancelled in the order in which they came.
//   - With asyncpreemptoff=1 in GODEBUG, no goroutine is preempted, and none loses
//     its processor in a system call.
//
// What remains is the garbage collector, which stops goroutines where they are: it
// must be off. And GOMAXPROCS must be 1.
//
//	go run ./internal/sim/overlay folder
//	go test -overlay folder/overlay.json ...
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// change replaces a text in a file of the standard library.
type change struct{ file, from, to string }

var changes = []change{
	{"runtime/rand.go", `	mp := getg().m
	c := &mp.chacha8
`, `	if b := getg().bubble; b != nil {
		return bubbleRand(b)
	}
	mp := getg().m
	c := &mp.chacha8
`},
	{"runtime/rand.go", `	return uint32(rand())
}

// rand returns`, `	if getg().bubble != nil {
		return 1
	}
	return uint32(rand())
}

// rand returns`},
	{"runtime/rand.go", `func maps_rand() uint64 {
`, `func maps_rand() uint64 {
	if getg().bubble != nil {
		return 1
	}
`},
	// The seed of all hashes.
	{"runtime/rand.go", `	if len(startupRand) >= 16 &&`, `	if seed[0] = 1; false &&`},
	{"runtime/rand.go", `	} else {
		if readRandom(seed[:]) !=`, `	} else if false {
		if readRandom(seed[:]) !=`},
	{"runtime/rand.go", `// mrandinit initializes`, `// bubbleRandom is the state of bubbleRand.
var bubbleRandom struct{ id, state uint64 }

// bubbleRand returns numbers that are the same in every bubble.
//
//go:nosplit
func bubbleRand(b *synctestBubble) uint64 {
	r := &bubbleRandom
	if r.id != b.id {
		r.id, r.state = b.id, 0
	}
	r.state += 0x9e3779b97f4a7c15
	z := r.state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// mrandinit initializes`},
	{"runtime/select.go", `cheaprandn(uint32(norder + 1))`, `randn(uint32(norder + 1))`},
	{"runtime/time.go", `t.rand = cheaprand()`, `t.rand = uint32(rand())`},
	{"runtime/proc.go", `func retake(now int64) uint32 {
`, `func retake(now int64) uint32 {
	if debug.asyncpreemptoff != 0 {
		return 0
	}
`},
	{"context/context.go", `children map[canceler]struct{} //`, `children map[canceler]uint64 //`},
	{"context/context.go", `make(map[canceler]struct{})`, `make(map[canceler]uint64)`},
	{"context/context.go", `p.children[child] = struct{}{}`, `p.children[child] = lastChild.Add(1)`},
	{"context/context.go", `for child := range c.children {`, `for _, child := range inOrder(c.children) {`},
	{"context/context.go", `// cancel closes c.done,`, `var lastChild atomic.Uint64

// inOrder lists children in the order in which they came.
func inOrder(children map[canceler]uint64) []canceler {
	list := make([]canceler, 0, len(children))
	for child := range children {
		list = append(list, child)
		for i := len(list) - 1; i > 0 && children[list[i-1]] > children[list[i]]; i-- {
			list[i-1], list[i] = list[i], list[i-1]
		}
	}
	return list
}

// cancel closes c.done,`},
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: overlay folder")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "overlay:", err)
		os.Exit(1)
	}
}

// write writes the changed files and the list of them into a folder.
func write(folder string) error {
	folder, err := filepath.Abs(folder)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("look for Go's sources: %w", err)
	}
	src := filepath.Join(strings.TrimSpace(string(root)), "src")
	texts := make(map[string]string)
	var list struct{ Replace map[string]string }
	list.Replace = make(map[string]string)
	for _, c := range changes {
		original := filepath.Join(src, filepath.FromSlash(c.file))
		if _, ok := texts[original]; !ok {
			text, err := os.ReadFile(original)
			if err != nil {
				return err
			}
			texts[original] = string(text)
			list.Replace[original] = filepath.Join(folder, path.Base(c.file))
		}
		if n := strings.Count(texts[original], c.from); n != 1 {
			return fmt.Errorf("%s has this %d times, and should have it once: adapt the changes to this version of Go:\n%s", original, n, c.from)
		}
		texts[original] = strings.Replace(texts[original], c.from, c.to, 1)
	}
	for original, text := range texts {
		if err := os.WriteFile(list.Replace[original], []byte(text), 0o644); err != nil {
			return err
		}
	}
	content, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(folder, "overlay.json"), content, 0o644)
}
