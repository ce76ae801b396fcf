package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/streamhouse/streamhouse/broker/config"
	"github.com/streamhouse/streamhouse/broker/fetch"
	"github.com/streamhouse/streamhouse/broker/ingest"
	"github.com/streamhouse/streamhouse/broker/node"
	"github.com/streamhouse/streamhouse/broker/peers"
	"github.com/streamhouse/streamhouse/broker/traffic"
	"github.com/streamhouse/streamhouse/broker/zone"
	"github.com/streamhouse/streamhouse/lease"
	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/metadata/sqlite"
	"github.com/streamhouse/streamhouse/protocol"
	"github.com/streamhouse/streamhouse/segment"
	"github.com/streamhouse/streamhouse/segment/objstore"
)

// Settings are what an agent is started with. settingsTable says of each what
// it is for, and is where flags, environment variables, the file's keys and the
// reference in docs come from.
type Settings struct {
	AgentID           string
	Address           string
	AdvertisedAddress string
	AdminAddress      string
	AvailabilityZone  string
	Zones             zone.Map
	AgentGroup        string
	TopicGroups       config.TopicGroups
	Cluster           string
	MultiAgent        bool
	DataDir           string
	MetadataURL       string
	ObjectURL         string
	LeaseDuration     time.Duration
	HeartbeatInterval time.Duration
	TopologyInterval  time.Duration
	ShutdownTimeout   time.Duration

	Flush ingest.Config
	Peer  PeerSettings
	Cache CacheSettings
	Kafka KafkaSettings
	Log   LogSettings
	Cost  traffic.Prices
}

// CacheSettings are those of the read path.
type CacheSettings struct {
	Bytes           int64
	BlockBytes      int64
	ReadAheadBlocks int
}

// KafkaSettings are those of the Kafka listener, of new topics and of groups.
type KafkaSettings struct {
	AutoCreateTopics bool
	MaxRequestBytes  int64
	MaxRequestMemory int64
	MaxConnections   int
	// Configs are those of config.Settings that are set, by Kafka's names.
	Configs map[string]string
}

// LogSettings are those of the agent's own log.
type LogSettings struct {
	Level  string
	Format string
}

func defaultSettings() *Settings {
	id, err := os.Hostname()
	if err != nil || id == "" {
		id = "agent"
	}
	leases := lease.DefaultConfig()
	flush := ingest.DefaultConfig()
	flush.PutsPerSecond, flush.PutBurst, flush.InlineBytesPerSecond, flush.InlineMaxBytes = 0, 0, 0, -1 // resolveBudgets
	return &Settings{
		AgentID:           id,
		Address:           "127.0.0.1:9092",
		AdminAddress:      "127.0.0.1:9644",
		DataDir:           "data",
		LeaseDuration:     leases.Duration,
		HeartbeatInterval: leases.RenewInterval,
		TopologyInterval:  5 * time.Second,
		ShutdownTimeout:   20 * time.Second,
		Flush:             flush,
		Cache:             CacheSettings{Bytes: 256 << 20, BlockBytes: 512 << 10, ReadAheadBlocks: 4},
		Kafka: KafkaSettings{
			AutoCreateTopics: true, MaxRequestBytes: 100 << 20, MaxRequestMemory: 256 << 20, MaxConnections: 10_000,
			Configs: map[string]string{},
		},
		Log:  LogSettings{Level: "info", Format: "text"},
		Cost: traffic.DefaultPrices(),
	}
}

// setting is one row of the table.
type setting struct {
	key   string // in the file, below streamhouse:
	value value
	doc   string
}

// settingsTable binds every key to its place in s.
func settingsTable(s *Settings) []setting {
	f := &s.Flush
	table := []setting{
		{"agent_id", text(&s.AgentID), "Name of this agent, unique among those that share a metadata store, and the same after a restart: then the agent has its leases back at once. The default is the host's name."},
		{"address", text(&s.Address), "Where the Kafka listener listens: host:port. An empty host is every interface."},
		{"advertised_address", text(&s.AdvertisedAddress), "host:port that clients are told to connect to. The default is the address, with the host's name where that is every interface."},
		{"admin_address", text(&s.AdminAddress), "Where /metrics, /healthz, /readyz, /agents, /leases, /cost and /debug/pprof listen. Keep it private."},
		{"availability_zone", text(&s.AvailabilityZone), "Zone in which this agent runs, and the broker's rack for clients. Those that are known to be of the same zone are told of its agents only, as long as there are any: by a tag in their client id (zone=us-east-1a, and the spellings of WarpStream and Inkless), by the subnets of zones, or by client.rack of consumers."},
		{"zones", subnets(&s.Zones), "Subnets of clients by zone: zone=subnet,subnet;zone=subnet, or in the file a list below each zone. The smallest subnet that has a client's address says in which zone it is, unless its client id does."},
		{"agent_group", text(&s.AgentGroup), "Group of agents to which this one belongs: it serves the topics and the consumer groups of that group, and nothing of others is there (docs/AGENT_GROUPS.md). Up to 64 characters of a-z, A-Z, 0-9, '.', '_' and '-'. The default group has no name."},
		{"topic_agent_groups", topicGroups(&s.TopicGroups), "Agent groups of new topics by prefixes of their names: prefix=group, separated by commas; the longest prefix counts, and topics without one are of the agent's own group. Set it alike for all agents: those of the default group make such a topic in its group, and those of another refuse to make it."},
		{"cluster", text(&s.Cluster), clusterDoc},
		{"multi_agent", boolean(&s.MultiAgent), "State that other agents share the stores, and refuse to start on stores that they cannot share: it takes PostgreSQL and S3."},
		{"data_dir", text(&s.DataDir), "Folder of the embedded stores, used where metadata_url or object_url is not set."},
		{"metadata_url", secretURL(&s.MetadataURL), "Metadata store: postgres://user:password@host/database, or sqlite:///path. The default is SQLite in data_dir. Parameters of libpq, such as sslmode, may follow a ?. PGPASSWORD and PGPASSFILE in the environment keep the password out."},
		{"object_url", secretURL(&s.ObjectURL), "Object store: s3://bucket/prefix, or file:///path. Parameters behind a ? are region, endpoint (http://host:port of another server than Amazon's), path_style, signed_payload, access_key and secret_key. Without keys, credentials are found as AWS clients find them. The default is a folder in data_dir."},
		{"lease_duration", duration(&s.LeaseDuration), "How long a partition's lease lasts without renewal: the longest time until partitions move whose agent nothing shows to be dead."},
		{"heartbeat_interval", duration(&s.HeartbeatInterval), "Time between two heartbeats, and between two renewals of leases. At most 0.8 of lease_duration, and 50s."},
		{"topology_interval", duration(&s.TopologyInterval), "Steady pace at which the agent looks for changes of topics and leaders. Requests that need a fresher view do not wait for it."},
		{"shutdown_timeout", duration(&s.ShutdownTimeout), "The longest time that SIGTERM waits for what is in flight."},

		{"flush.max_bytes", size(&f.MaxBytes), "Bytes at which the open buffer is flushed as one object."},
		{"flush.max_batches", integer(&f.MaxBatches), "Record batches at which the open buffer is flushed."},
		{"flush.max_partitions", integer(&f.MaxPartitions), "Partitions at which the open buffer is flushed."},
		{"flush.puts_per_second", float(&f.PutsPerSecond), "Budget of uploads, on average. It bounds the bill: at 5 $ a million, 40 a second are at most 18 $ a day, and only under steady load. 0 is what suits the store: 40 for S3, 100 for a folder. While it lasts, buffers are flushed at once."},
		{"flush.put_burst", float(&f.PutBurst), "Uploads that may be made at once after a quiet time. 0 is what suits the store: 80 for S3, 200 for a folder."},
		{"flush.max_linger", duration(&f.MaxLinger), "The longest time that a batch waits for the budget of uploads, or for the pace of commits."},
		{"flush.commit_spacing", duration(&f.CommitSpacing), "Time from one commit to the next for each other agent that leads partitions, under steady load of many producers. It bounds what all agents together ask of the database: by default about 70 commits a second, besides flushes with batches for leaders in other zones, which do not wait for it. An agent alone does not wait, nor does a producer that has nobody to wait for; 0 switches that off."},
		{"flush.max_uploads", integer(&f.MaxUploads), "Uploads that run at a time."},
		{"flush.upload_timeout", duration(&f.UploadTimeout), "The longest time of one upload, its retries included."},
		{"flush.inline_max_bytes", sizeOrAuto(&f.InlineMaxBytes), "The largest flush that is kept in the metadata store instead of an object; 0 switches that off. auto is 16 KiB, and 0 for an agent with an availability_zone on PostgreSQL, which may be in another zone."},
		{"flush.inline_bytes_per_second", float(&f.InlineBytesPerSecond), "Budget of bytes kept in the metadata store, on average. While it lasts, small flushes are answered without an upload. 0 is what suits the store: 256 KiB for PostgreSQL, 16 MiB for SQLite."},
		{"flush.inline_burst", float(&f.InlineBurst), "Bytes that may be kept there at once after a quiet time."},
		{"flush.max_buffered_bytes", size(&f.MaxBufferedBytes), "Bytes of batches that may be buffered or on their way to the stores. More are refused with a retriable error."},
		{"flush.commit_timeout", duration(&f.CommitTimeout), "The longest time of one attempt of a commit."},
		{"flush.commit_deadline", duration(&f.CommitDeadline), "How long a batch waits for an unavailable metadata store before it is refused."},

		{"cache.bytes", size(&s.Cache.Bytes), "Memory for blocks of objects. Where the process has a memory limit (a container's, or GOMEMLIMIT), at most a quarter of that is used."},
		{"cache.block_bytes", size(&s.Cache.BlockBytes), "Size of a block: the unit of caching and of range reads."},
		{"cache.read_ahead_blocks", integer(&s.Cache.ReadAheadBlocks), "Blocks that are read ahead for a sequential reader; 0 switches that off."},

		{"kafka.auto_create_topics", boolean(&s.Kafka.AutoCreateTopics), "Create a topic when a client asks for it (auto.create.topics.enable)."},
		{"kafka.max_request_bytes", size(&s.Kafka.MaxRequestBytes), "The largest request (socket.request.max.bytes)."},
		{"kafka.max_request_memory", size(&s.Kafka.MaxRequestMemory), "Memory of all requests of more than 8 KiB that are not answered yet, with what they decode to; smaller ones have as much of their own. Connections are not read beyond it."},
		{"kafka.max_connections", integer(&s.Kafka.MaxConnections), "Connections that may be open, if the limit of open files allows it. A further one takes the place of the one that has been idle for longest."},
	}
	for _, d := range config.Settings() {
		key := "kafka." + strings.ReplaceAll(d.Name, ".", "_")
		table = append(table, setting{key, &kafkaConfig{d, s.Kafka.Configs}, d.Doc})
	}
	table = append(table, costSettings(s)...)
	table = append(table, peerSettings(s)...)
	return append(table, []setting{
		{"log.level", choice(&s.Log.Level, "debug", "info", "warn", "error"), "Least level that is logged: debug, info, warn or error."},
		{"log.format", choice(&s.Log.Format, "text", "json"), "Format of the log, on standard error: text or json."},
	}...)
}

// resolve fills in what depends on other settings and checks the whole. Errors
// are for the operator: one line that says what to do.
func (s *Settings) resolve() error {
	if n := len(s.AgentID); n == 0 || n > segment.MaxAgentIDLength || !utf8.ValidString(s.AgentID) {
		return fmt.Errorf("agent_id must be 1 to %d bytes of text", segment.MaxAgentIDLength)
	}
	for _, check := range []func() error{s.resolveStores, s.resolveBudgets, s.checkAddresses, s.resolvePeer, s.checkTimes, s.checkLimits, s.checkCluster, s.checkPrices, s.checkZones} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// resolveStores places the stores that are not configured in the data folder.
func (s *Settings) resolveStores() error {
	dir, err := filepath.Abs(s.DataDir)
	if err != nil {
		return fmt.Errorf("data_dir: %w", err)
	}
	if s.MetadataURL == "" {
		s.MetadataURL = sqlite.Scheme + filepath.Join(dir, "metadata.db")
	}
	if s.ObjectURL == "" {
		s.ObjectURL = (&url.URL{Scheme: "file", Path: filepath.Join(dir, "objects")}).String()
	}
	sharedObjects := strings.HasPrefix(s.ObjectURL, "s3://")
	switch {
	case !s.postgres() && !strings.HasPrefix(s.MetadataURL, sqlite.Scheme):
		return errors.New("metadata_url must begin with postgres:// or sqlite://")
	case s.postgres() && !isURL(s.MetadataURL):
		return errors.New("metadata_url is malformed: special characters in the password must be escaped as %XX")
	case !sharedObjects && !strings.HasPrefix(s.ObjectURL, "file://"):
		return errors.New("object_url must begin with s3:// or file://")
	case !isURL(s.ObjectURL):
		return errors.New("object_url is malformed: special characters must be escaped as %XX")
	case s.MultiAgent && !(s.postgres() && sharedObjects):
		return errors.New("multi_agent needs stores that agents can share: set metadata_url to postgres://… and object_url to s3://…, or leave multi_agent off")
	}
	return nil
}

// resolveBudgets fills in the budgets that are not configured: in a bucket each
// PUT is billed, and bytes in a database that others share should be few; in a
// folder and in a file of one's own neither costs anything but the disk's time.
func (s *Settings) resolveBudgets() error {
	standard := ingest.DefaultConfig()
	local := ingest.Config{PutsPerSecond: 100, PutBurst: 200, InlineBytesPerSecond: 16 << 20, InlineMaxBytes: standard.InlineMaxBytes}
	puts, inline := standard, standard
	if strings.HasPrefix(s.ObjectURL, "file://") {
		puts = local
	}
	if !s.postgres() {
		inline = local
	}
	f := &s.Flush
	f.PutsPerSecond = cmp.Or(f.PutsPerSecond, puts.PutsPerSecond)
	f.PutBurst = cmp.Or(f.PutBurst, puts.PutBurst)
	f.InlineBytesPerSecond = cmp.Or(f.InlineBytesPerSecond, inline.InlineBytesPerSecond)
	if f.InlineMaxBytes < 0 {
		f.InlineMaxBytes = inline.InlineMaxBytes
		if s.postgres() && s.AvailabilityZone != "" {
			f.InlineMaxBytes = 0
		}
	}
	return nil
}

func (s *Settings) checkAddresses() error {
	if _, _, err := hostPort(s.Address); err != nil {
		return fmt.Errorf("address %q: %w", s.Address, err)
	}
	if _, _, err := hostPort(s.AdminAddress); err != nil {
		return fmt.Errorf("admin_address %q: %w", s.AdminAddress, err)
	}
	if s.AdvertisedAddress != "" {
		if host, port, err := hostPort(s.AdvertisedAddress); err != nil || host == "" || port == 0 {
			return fmt.Errorf("advertised_address %q: must be host:port as clients reach it", s.AdvertisedAddress)
		}
	}
	return nil
}

func (s *Settings) checkTimes() error {
	leases := s.leaseConfig()
	if err := leases.Validate(); err != nil {
		return fmt.Errorf("heartbeat_interval (%s) and lease_duration (%s) do not go together: the interval must be at most 0.8 of the duration, and both positive", s.HeartbeatInterval, s.LeaseDuration)
	}
	if longest := metadata.AgentListedFor * 5 / 6; s.HeartbeatInterval > longest {
		return fmt.Errorf("heartbeat_interval (%s) must be at most %s: agents are not listed any more %s after their last heartbeat",
			s.HeartbeatInterval, longest, metadata.AgentListedFor)
	}
	if s.TopologyInterval <= 0 || s.ShutdownTimeout <= 0 {
		return errors.New("topology_interval and shutdown_timeout must be positive")
	}
	return nil
}

func (s *Settings) checkLimits() error {
	switch {
	case s.Cache.BlockBytes < 4<<10 || s.Cache.Bytes < s.Cache.BlockBytes:
		return errors.New("cache.block_bytes must be at least 4KiB, and cache.bytes at least cache.block_bytes")
	case s.Cache.ReadAheadBlocks < 0:
		return errors.New("cache.read_ahead_blocks must not be negative")
	case s.Kafka.MaxRequestBytes < 1<<10 || s.Kafka.MaxRequestMemory < s.Kafka.MaxRequestBytes:
		return errors.New("kafka.max_request_bytes must be at least 1KiB, and kafka.max_request_memory at least kafka.max_request_bytes")
	case s.Kafka.MaxConnections < 1:
		return errors.New("kafka.max_connections must be at least 1")
	}
	if _, err := config.NewBroker(s.brokerConfigs()); err != nil {
		return fmt.Errorf("settings below kafka: %w", err)
	}
	if err := s.Flush.Validate(); err != nil {
		return fmt.Errorf("settings below flush: %w", err)
	}
	return nil
}

func isURL(raw string) bool {
	_, err := url.Parse(raw)
	return err == nil
}

func (s *Settings) postgres() bool {
	return strings.HasPrefix(s.MetadataURL, "postgres://") || strings.HasPrefix(s.MetadataURL, "postgresql://")
}

// memoryShare is which part of the process's memory limit the cache may have.
const memoryShare = 4

// fetchConfig is that of the read path in a process with a memory limit in
// bytes, math.MaxInt64 for none.
func (s *Settings) fetchConfig(memoryLimit int64) fetch.Config {
	c := fetch.Config{
		CacheBytes:      min(s.Cache.Bytes, memoryLimit/memoryShare),
		BlockBytes:      s.Cache.BlockBytes,
		ReadAheadBlocks: s.Cache.ReadAheadBlocks,
	}
	if c.ReadAheadBlocks == 0 {
		c.ReadAheadBlocks = -1 // none; 0 is fetch's default
	}
	return c
}

// nodeConfig is that of one life of an agent, which clients reach at host and port.
func (s *Settings) nodeConfig(session uuid.UUID, host string, port int32) node.Config {
	return node.Config{
		Self:  metadata.Agent{ID: s.AgentID, Session: session, Host: host, Port: port, Zone: s.AvailabilityZone, Group: s.AgentGroup},
		Lease: s.leaseConfig(), TopologyInterval: s.TopologyInterval, ShutdownTimeout: s.ShutdownTimeout,
		Flush: s.Flush, Fetch: s.fetchConfig(debug.SetMemoryLimit(-1)), Objects: objstore.DefaultPolicy(),
		Peers: peers.DefaultConfig(), RPC: s.rpcConfig(), Server: s.serverConfig(), Prices: s.prices(),
		Zones: s.Zones, Configs: s.brokerConfigs(), TopicGroups: s.TopicGroups, LogDir: withoutQuery(s.clusterObjects()),
	}
}

func (s *Settings) leaseConfig() lease.Config {
	c := lease.DefaultConfig()
	c.Duration, c.RenewInterval = s.LeaseDuration, s.HeartbeatInterval
	c.Margin = min(c.Margin, s.LeaseDuration/10)
	return c
}

func (s *Settings) serverConfig() protocol.ServerConfig {
	return protocol.ServerConfig{
		MaxFrameBytes:    int(s.Kafka.MaxRequestBytes),
		MaxRequestMemory: s.Kafka.MaxRequestMemory,
		MaxConnections:   s.Kafka.MaxConnections,
	}
}

// brokerConfigs are the settings under the names that Kafka's clients know.
func (s *Settings) brokerConfigs() map[string]string {
	c := maps.Clone(s.Kafka.Configs)
	c["auto.create.topics.enable"] = strconv.FormatBool(s.Kafka.AutoCreateTopics)
	c["socket.request.max.bytes"] = strconv.FormatInt(s.Kafka.MaxRequestBytes, 10)
	if s.AvailabilityZone != "" {
		c["broker.rack"] = s.AvailabilityZone
	}
	return c
}

// advertised is what clients are told, given where the agent listens.
func (s *Settings) advertised(listening net.Addr) (host string, port int32, err error) {
	if s.AdvertisedAddress != "" {
		return hostPort(s.AdvertisedAddress)
	}
	if host, err = hostOf(s.Address); err != nil {
		return "", 0, fmt.Errorf("advertised_address must be set: %w", err)
	}
	return host, int32(listening.(*net.TCPAddr).Port), nil
}

// hostOf is how others name the host that listens at an address.
func hostOf(address string) (string, error) {
	host, _, err := hostPort(address)
	if err != nil {
		return "", err
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		return os.Hostname()
	}
	return host, nil
}

func hostPort(address string) (host string, port int32, err error) {
	host, p, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, errors.New("must be host:port")
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		return "", 0, errors.New("must be host:port, with a port from 0 to 65535")
	}
	return host, int32(n), nil
}
