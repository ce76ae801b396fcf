package main

import (
	"fmt"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/pflag"
	"go.uber.org/goleak"
)

// program is the name under which this test binary is the program itself: for
// scripts, and for tests that need a process of their own.
const program = "streamhouse"

func TestMain(m *testing.M) {
	testscript.Main(leakChecked{m}, map[string]func(){program: main})
}

// leakChecked fails a run of tests that leaves goroutines behind.
type leakChecked struct{ *testing.M }

func (m leakChecked) Run() int {
	status := m.M.Run()
	if status != 0 {
		return status
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// TestInlineInZones resolves how much of a flush may stay in the metadata store.
func TestInlineInZones(t *testing.T) {
	for _, c := range []struct {
		flags []string
		want  int64
	}{
		{nil, 16 << 10},
		{[]string{"--availability-zone=a"}, 16 << 10}, // its database is beside it
		{[]string{"--metadata-url=postgres://db/x"}, 16 << 10},
		{[]string{"--metadata-url=postgres://db/x", "--availability-zone=a"}, 0},
		{[]string{"--metadata-url=postgres://db/x", "--availability-zone=a", "--flush-inline-max-bytes=4KiB"}, 4 << 10},
		{[]string{"--flush-inline-max-bytes=0"}, 0},
		{[]string{"--metadata-url=postgres://db/x", "--flush-inline-max-bytes=auto"}, 16 << 10},
	} {
		flags := pflag.NewFlagSet("", pflag.ContinueOnError)
		addFlags(flags)
		if err := flags.Parse(c.flags); err != nil {
			t.Fatal(err)
		}
		l, err := load(flags, nil)
		if err != nil || l.Flush.InlineMaxBytes != c.want {
			t.Errorf("%v: %d, %v, want %d", c.flags, l.Flush.InlineMaxBytes, err, c.want)
		}
	}
}
