package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/streamhouse/streamhouse/internal/testdb"
)

// TestScripts runs the program as people do, by testdata/script. Beside what
// testscript knows, there is
//
//	start NAME [flag...]           starts an agent; its address is in $NAME
//	stop NAME                      ends it with SIGTERM; it must exit with 0
//	produce ADDRESS TOPIC N SIZE   produces N records of SIZE bytes, each alone
//	glob VARIABLE PATTERN          sets a variable to the first file that matches
//
// and in the environment POSTGRES, the URL of an empty database of a server with
// fsync=off, and BUSY, an address that is in use.
func TestScripts(t *testing.T) {
	database := testdb.Postgres(t)
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { busy.Close() })
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("POSTGRES", database)
			e.Setenv("BUSY", busy.Addr().String())
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"start": scriptStart, "stop": scriptStop, "produce": scriptProduce, "glob": scriptGlob,
		},
	})
}

// scriptTimeout bounds one of our commands.
const scriptTimeout = 30 * time.Second

// scriptAgents are the agents that scripts have started, by script and name.
var scriptAgents sync.Map

type scriptAgent struct {
	script *testscript.TestScript
	name   string
}

func scriptStart(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: start NAME [flag...]")
	}
	ctx, cancel := context.WithTimeout(context.Background(), scriptTimeout)
	defer cancel()
	agent, err := startProcess(ctx, ts.MkAbs("."), args[1:]...)
	ts.Check(err)
	ts.Defer(func() { ts.Check(agent.kill()) })
	scriptAgents.Store(scriptAgent{ts, args[0]}, agent)
	ts.Setenv(args[0], agent.kafka)
	ts.Logf("%s", agent.log())
}

func scriptStop(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: stop NAME")
	}
	found, ok := scriptAgents.LoadAndDelete(scriptAgent{ts, args[0]})
	if !ok {
		ts.Fatalf("there is no agent %s", args[0])
	}
	agent := found.(*process)
	ctx, cancel := context.WithTimeout(context.Background(), scriptTimeout)
	defer cancel()
	ts.Check(agent.cmd.Process.Signal(syscall.SIGTERM))
	status, err := agent.end(ctx)
	ts.Check(err)
	if status != 0 {
		ts.Fatalf("exit status %d:\n%s", status, agent.log())
	}
}

func scriptProduce(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: produce ADDRESS TOPIC N SIZE")
	}
	records, err := strconv.Atoi(args[2])
	ts.Check(err)
	size, err := strconv.Atoi(args[3])
	ts.Check(err)
	client, err := kgo.NewClient(kgo.SeedBrokers(args[0]), kgo.AllowAutoTopicCreation(), kgo.UnknownTopicRetries(10),
		kgo.ProducerBatchCompression(kgo.NoCompression()))
	ts.Check(err)
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), scriptTimeout)
	defer cancel()
	for range records {
		record := &kgo.Record{Topic: args[1], Value: bytes.Repeat([]byte{'x'}, size)}
		ts.Check(client.ProduceSync(ctx, record).FirstErr())
	}
}

func scriptGlob(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: glob VARIABLE PATTERN")
	}
	found, err := filepath.Glob(ts.MkAbs(args[1]))
	ts.Check(err)
	if len(found) == 0 {
		ts.Check(fmt.Errorf("nothing matches %s", args[1]))
	}
	ts.Setenv(args[0], found[0])
}
