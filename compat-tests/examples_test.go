package compattests

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.yaml.in/yaml/v3"

	"github.com/streamhouse/streamhouse/compat-tests/harness"
	"github.com/streamhouse/streamhouse/compat-tests/toolchain"
	"github.com/streamhouse/streamhouse/internal/testdb"
)

// TestExamples runs the agents of each example below deploy/examples, with its files, and sees that what the example is
// for is so.
func TestExamples(t *testing.T) {
	t.Parallel()
	tests := map[string]func(context.Context, *testing.T, *example){
		"production-staging": productionAndStaging,
		"two-regions":        twoRegions,
		"saas-tenants":       saasTenants,
		"zones":              clientsInZones,
	}
	folders, err := filepath.Glob(filepath.Join(examplesFolder(), "*", "compose.yaml"))
	if err != nil || len(folders) != len(tests) {
		t.Errorf("%d examples (%v), and tests of %d", len(folders), err, len(tests))
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := deadline(t, 3*time.Minute)
			test(ctx, t, startExample(t, name))
		})
	}
}

func examplesFolder() string {
	return filepath.Join(filepath.Dir(toolchain.Root()), "deploy", "examples")
}

// example is an example that runs.
type example struct {
	database string
	agents   map[string]*harness.Agent // by the service's name
	buckets  map[string]string         // URLs, by the service's name
}

// service is what is looked at of a compose file's service.
type service struct {
	Environment map[string]string `yaml:"environment"`
	Volumes     []string          `yaml:"volumes"`
	Build       struct {
		Target string `yaml:"target"`
	} `yaml:"build"`
}

// startExample starts the agents that a compose file has, with their configuration files and what says who and where
// they are. Only addresses and stores are this machine's, with a bucket for each S3 server.
func startExample(t *testing.T, folder string) *example {
	t.Helper()
	folder = filepath.Join(examplesFolder(), folder)
	var compose struct {
		Services map[string]service `yaml:"services"`
	}
	readYAML(t, filepath.Join(folder, "compose.yaml"), &compose)
	x := &example{database: harness.FastStores(t).Metadata, agents: make(map[string]*harness.Agent), buckets: make(map[string]string)}
	for name, s := range compose.Services {
		if s.Build.Target == "s3server" {
			x.buckets[name] = testdb.S3(t)
		}
	}
	var names []string
	var configurations []harness.Configuration
	for name, s := range compose.Services {
		if s.Build.Target != "agent" {
			continue
		}
		file, _, _ := strings.Cut(s.Volumes[0], ":")
		c := harness.Configuration{ID: s.Environment["STREAMHOUSE_AGENT_ID"], File: filepath.Join(folder, file)}
		c.Env = []string{"STREAMHOUSE_METADATA_URL=" + x.database, "STREAMHOUSE_OBJECT_URL=" + x.objects(t, c.File)}
		if zone, ok := s.Environment["STREAMHOUSE_AVAILABILITY_ZONE"]; ok {
			c.Env = append(c.Env, "STREAMHOUSE_AVAILABILITY_ZONE="+zone)
		}
		names, configurations = append(names, name), append(configurations, c)
	}
	for i, a := range harness.Configured(t, configurations) {
		x.agents[names[i]] = a
	}
	return x
}

func readYAML(t *testing.T, file string, into any) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err == nil {
		err = yaml.Unmarshal(content, into)
	}
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

// objects is the object_url of a configuration file, with the bucket that stands for the server that it names.
func (x *example) objects(t *testing.T, file string) string {
	t.Helper()
	var config struct {
		Settings struct {
			ObjectURL string `yaml:"object_url"`
		} `yaml:"streamhouse"`
	}
	readYAML(t, file, &config)
	theirs, err := url.Parse(config.Settings.ObjectURL)
	if err != nil {
		t.Fatal(err)
	}
	endpoint, err := url.Parse(theirs.Query().Get("endpoint"))
	if err != nil || x.buckets[endpoint.Hostname()] == "" {
		t.Fatalf("%s: no service is the endpoint of %s (%v)", file, theirs, err)
	}
	ours, err := url.Parse(x.buckets[endpoint.Hostname()])
	if err != nil {
		t.Fatal(err)
	}
	ours.Path = theirs.Path
	return ours.String()
}

// side are agents of an example that make one cluster to their clients.
type side struct {
	name   string
	agents []*harness.Agent
	client *kgo.Client
	admin  *kadm.Client
}

// side returns the agents whose services' names begin so, once each lists them and no others.
func (x *example) side(ctx context.Context, t *testing.T, prefix string) *side {
	t.Helper()
	s := &side{name: prefix}
	var want []string
	for _, name := range slices.Sorted(maps.Keys(x.agents)) {
		if strings.HasPrefix(name, prefix) {
			s.agents = append(s.agents, x.agents[name])
			want = append(want, x.agents[name].Address())
		}
	}
	slices.Sort(want)
	for _, a := range s.agents {
		admin := kadm.NewClient(dialAgents(t, []*harness.Agent{a}, kgo.ClientID(harness.NoZone)))
		eventually(ctx, t, func() error {
			brokers, err := admin.ListBrokers(ctx)
			if err != nil {
				return err
			}
			var listed []string
			for _, b := range brokers {
				listed = append(listed, fmt.Sprintf("%s:%d", b.Host, b.Port))
			}
			if slices.Sort(listed); !slices.Equal(listed, want) {
				return fmt.Errorf("%s lists agents at %v, and there are %v", a.ID(), listed, want)
			}
			return nil
		})
	}
	s.client = dialAgents(t, s.agents, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.NoCompression()))
	s.admin = kadm.NewClient(s.client)
	return s
}

// dialAgents makes a client that starts at these agents.
func dialAgents(t *testing.T, agents []*harness.Agent, options ...kgo.Opt) *kgo.Client {
	t.Helper()
	var seeds []string
	for _, a := range agents {
		seeds = append(seeds, a.Address())
	}
	client, err := kgo.NewClient(append(options, kgo.SeedBrokers(seeds...))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// write makes a topic of one partition and writes records to it.
func (s *side) write(ctx context.Context, t *testing.T, topic string, values ...string) {
	t.Helper()
	if _, err := s.admin.CreateTopic(ctx, 1, -1, nil, topic); err != nil {
		t.Fatalf("%s: create %s: %v", s.name, topic, err)
	}
	for _, value := range values {
		if err := s.client.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte(value)}).FirstErr(); err != nil {
			t.Fatalf("%s: write to %s: %v", s.name, topic, err)
		}
	}
}

// read has a group read a topic from where it is, commit, and leave; it returns what it read.
func (s *side) read(ctx context.Context, t *testing.T, topic, group string, want int) []string {
	t.Helper()
	member := dialAgents(t, s.agents, kgo.ConsumeTopics(topic), kgo.ConsumerGroup(group), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer member.Close()
	var values []string
	for len(values) < want {
		fetches := member.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("%s: %s reads %s: %v", s.name, group, topic, err)
		}
		fetches.EachRecord(func(r *kgo.Record) { values = append(values, string(r.Value)) })
	}
	if err := member.CommitUncommittedOffsets(ctx); err != nil {
		t.Errorf("%s: %s commits: %v", s.name, group, err)
	}
	return values
}

// strangers have both sides write to a topic, and read it with a group, of the same names, and demands that neither
// notices the other.
func strangers(ctx context.Context, t *testing.T, sides ...*side) {
	t.Helper()
	const topic, group = "orders", "billing"
	written := make(map[*side][]string)
	for i, s := range sides {
		for n := range i + 1 { // so that the ends differ
			written[s] = append(written[s], fmt.Sprintf("order %d of %s", n, s.name))
		}
		s.write(ctx, t, topic, written[s]...)
		s.write(ctx, t, "only-"+s.name, "of "+s.name)
	}
	for _, s := range sides {
		if got := s.read(ctx, t, topic, group, len(written[s])); !slices.Equal(got, written[s]) {
			t.Errorf("%s reads %q, and wrote %q", s.name, got, written[s])
		}
		s.read(ctx, t, "only-"+s.name, "readers-of-"+s.name, 1)
	}
	ids := make(map[kadm.TopicID]string)
	for _, s := range sides {
		topics, err := s.admin.ListTopics(ctx)
		if want := []string{"only-" + s.name, topic}; err != nil || !slices.Equal(topics.Names(), want) {
			t.Errorf("%s lists topics %q (%v), and has %q", s.name, topics.Names(), err, want)
		}
		if other, twice := ids[topics[topic].ID]; twice {
			t.Errorf("the topic of %s is that of %s", s.name, other)
		}
		ids[topics[topic].ID] = s.name
		groups, err := s.admin.ListGroups(ctx)
		if want := []string{group, "readers-of-" + s.name}; err != nil || !slices.Equal(groups.Groups(), want) {
			t.Errorf("%s lists groups %q (%v), and has %q", s.name, groups.Groups(), err, want)
		}
		offsets, err := s.admin.FetchOffsets(ctx, group)
		if at, ok := offsets.Lookup(topic, 0); err != nil || !ok || at.At != int64(len(written[s])) {
			t.Errorf("%s has its group at %+v (%v), not at %d", s.name, offsets, err, len(written[s]))
		}
	}
}
