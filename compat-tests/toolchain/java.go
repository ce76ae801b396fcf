package toolchain

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// Java is a JVM with jars of Apache Kafka on its class path.
type Java struct {
	libs string
}

// NewJava returns a JVM with Apache Kafka's client, tools and server.
func NewJava(ctx context.Context) (Java, error) { return newJava(ctx, "kafka", "pom.xml") }

// NewOldJava returns a JVM with the last Java client of Apache Kafka 2.
func NewOldJava(ctx context.Context) (Java, error) { return newJava(ctx, "kafka2", "old-pom.xml") }

// NewConnect returns a JVM with Kafka Connect's worker, its file connectors and MirrorMaker 2.
func NewConnect(ctx context.Context) (Java, error) { return newJava(ctx, "connect", "connect-pom.xml") }

// newJava returns a JVM with the jars that a pom in the folder java names, which are downloaded if they are not cached.
func newJava(ctx context.Context, name, pom string) (Java, error) {
	pom = filepath.Join(Root(), "java", pom)
	dir, err := cached(ctx, name, pom, func(ctx context.Context, dir string) error {
		return run(ctx, "mvn", "--quiet", "--batch-mode", "--file", pom,
			"org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies",
			"-DoutputDirectory="+filepath.Join(dir, "libs"))
	})
	if err != nil {
		return Java{}, err
	}
	return Java{libs: filepath.Join(dir, "libs")}, nil
}

// Version is that of Apache Kafka.
func (j Java) Version() string {
	const prefix, suffix = "kafka-clients-", ".jar"
	found, err := filepath.Glob(filepath.Join(j.libs, prefix+"*"+suffix))
	if err != nil || len(found) != 1 {
		return "unknown"
	}
	return strings.TrimSuffix(strings.TrimPrefix(filepath.Base(found[0]), prefix), suffix)
}

// quickStart are JVM options for programs that live for seconds: they start twice as fast without the optimising
// compiler and with the simplest collector.
var quickStart = []string{"-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"}

// Tool returns the command that runs a short-lived class or Java source file, quiet but for warnings.
func (j Java) Tool(ctx context.Context, main string, args ...string) *exec.Cmd {
	return j.command(ctx, append(quickStart, "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", main), args)
}

// Server returns the command that runs a long-lived class with a heap of heapMiB, as fast as the JVM can.
func (j Java) Server(ctx context.Context, heapMiB int, main string, args ...string) *exec.Cmd {
	heap := fmt.Sprintf("%dm", heapMiB)
	return j.command(ctx, []string{"-Xms" + heap, "-Xmx" + heap, "-XX:+UseG1GC", main}, args)
}

// Service returns the command that runs a long-lived class that has little to do, with a heap of at most heapMiB: it
// starts as quickly as a tool, and logs what it does with the time.
func (j Java) Service(ctx context.Context, heapMiB int, main string, args ...string) *exec.Cmd {
	options := append([]string{fmt.Sprintf("-Xmx%dm", heapMiB)}, quickStart...)
	options = append(options, "-Dorg.slf4j.simpleLogger.showDateTime=true",
		"-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS", main)
	return j.command(ctx, options, args)
}

func (j Java) command(ctx context.Context, options, args []string) *exec.Cmd {
	argv := append([]string{"-cp", filepath.Join(j.libs, "*")}, options...)
	return exec.CommandContext(ctx, "java", append(argv, args...)...)
}
