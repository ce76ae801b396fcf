// Command testenv runs a command with the test run's servers: it starts
// PostgreSQL and the S3 server, names them in the command's environment as
// internal/testdb expects, and ends them with the command.
//
//	go run ./tools/testenv go test ./...
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/streamhouse/streamhouse/internal/testdb"
)

func main() {
	status, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "testenv:", err)
		os.Exit(1)
	}
	os.Exit(status)
}

// run returns the command's exit status.
func run(command []string) (status int, err error) {
	if len(command) == 0 {
		return 0, errors.New("name the command to run")
	}
	environment, stop, err := testdb.StartShared()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, stop()) }()

	// An interrupt at the terminal reaches the command too; testenv outlives it to
	// end the servers.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	child := exec.Command(command[0], command[1:]...)
	child.Env = append(os.Environ(), environment...)
	child.Stdin, child.Stdout, child.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := child.Start(); err != nil {
		return 0, err
	}
	go func() {
		for s := range signals {
			_ = child.Process.Signal(s) // ended already is fine
		}
	}()
	failure := child.Wait()
	if exit := (*exec.ExitError)(nil); errors.As(failure, &exit) {
		return max(exit.ExitCode(), 1), nil
	}
	return 0, failure
}
