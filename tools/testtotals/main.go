// Command testtotals runs `go test` in one or more modules, prints what fails as
// it fails and a line for each package, and ends with the slowest tests and the
// totals:
//
//	123 passed, 0 failed, 0 skipped
//
// Flags after -- go to `go test`. Exit status 1 means that something failed.
//
//	go run ./tools/testtotals . compat-tests -- -race
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
)

func main() {
	modules, flags := os.Args[1:], []string(nil)
	if i := slices.Index(modules, "--"); i >= 0 {
		modules, flags = modules[:i], modules[i+1:]
	}
	totals := newTotals(os.Stdout)
	for _, module := range modules {
		if err := test(totals, module, flags); err != nil {
			totals.fail(fmt.Sprintf("go test in %s: %v", module, err))
		}
	}
	if !totals.summary() {
		os.Exit(1)
	}
}

// test runs one module's tests. Failures that the totals have seen are no error.
func test(totals *totals, module string, flags []string) error {
	args := append([]string{"test", "-json"}, flags...)
	command := exec.Command("go", append(args, "./...")...)
	command.Dir = module
	command.Stderr = os.Stderr
	out, err := command.StdoutPipe()
	if err != nil {
		return err
	}
	if err := command.Start(); err != nil {
		return err
	}
	before := totals.failed
	err = totals.read(out)
	_, _ = io.Copy(io.Discard, out) // what follows a line that cannot be read
	exit := command.Wait()
	if err != nil {
		return err
	}
	if exit != nil && totals.failed == before {
		return errors.Join(exit, errors.New("no test failed: see above"))
	}
	return nil
}
