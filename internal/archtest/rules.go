package archtest

// layer says what a package may import of this module. Every package has one:
// the layer with the longest name that covers it. A name covers its own folder
// and all below; a "*" stands for one folder, so that "broker/*" makes each
// folder under broker a layer of its own. A layer may import itself.
//
// The rules hold for the code that is shipped, not for _test.go files.
type layer struct {
	name string
	may  []string // names of layers or folders
	why  string
}

// everywhere may be imported by every layer.
var everywhere = []string{"internal/invariant"}

var layers = []layer{
	{"internal/invariant", nil, "assertions stand in every package, so they depend on none"},
	{"lease", nil, "who may write is decided without knowing what is written"},
	{"segment", nil, "an object can be read from the bucket alone: its format knows no database"},
	{"protocol", nil, "bytes and kmsg: knows no topic and no lease"},
	{"migrations", nil, "the schema is SQL, and older than any code that reads it"},
	{"metadata", []string{"lease", "segment", "migrations"}, "the truth names leases and objects, and nothing of Kafka's wire"},
	{"broker", []string{"broker", "protocol", "metadata", "lease", "segment"}, "translates between the wire and the domain"},
	{
		"broker/*",
		[]string{"metadata", "lease", "segment", "protocol/batch", "broker/config"},
		"a noun of the domain: knows no wire, and meets its siblings through interfaces that it declares; " +
			"config is a table of definitions without state",
	},
	{
		"broker/partition",
		[]string{"metadata", "lease", "segment", "protocol/batch", "broker/ingest"},
		"the front of the pool and its only user: its appends are the pool's items and its results the pool's",
	},
	{"broker/node", []string{"broker", "protocol", "metadata", "lease", "segment"}, "builds the whole graph, and knows no files and no database"},
	{"cmd", []string{"broker", "protocol", "metadata", "lease", "segment", "migrations"}, "opens what an agent stands on, and shows what there is"},
	{"internal/sim", []string{"internal/check", "broker", "protocol", "metadata", "lease", "segment"}, "runs whole agents, and judges what their clients saw"},
	{"internal/check", nil, "knows no network and no broker, so that it can be shown to catch what it is there to catch"},
	{"internal/testdb", nil, "tests of every layer use it"},
	{"internal/archtest", nil, "reads source, runs none"},
	{"tools", []string{"internal/testdb"}, "runs tests, is no part of the agent"},
}

// library keeps a third-party module in the packages that know it, so that it can
// be replaced there.
type library struct {
	module string
	only   []string // names of layers or folders
	why    string
}

var libraries = []library{
	{"github.com/jackc/pgx", []string{"metadata/postgres", "internal/testdb"}, "one package speaks to PostgreSQL; testdb makes the databases that tests use"},
	{"modernc.org/sqlite", []string{"metadata/sqlite"}, "one package speaks to SQLite"},
	{"github.com/pressly/goose", []string{"migrations", "metadata"}, "the schema is applied where the store is opened"},
	{"github.com/minio/minio-go", []string{"segment/objstore/s3", "internal/testdb"}, "one package speaks to S3; testdb makes the buckets that tests use"},
	{"github.com/knadh/koanf", []string{"cmd"}, "packages take a config struct, whatever filled it"},
	{"github.com/spf13", []string{"cmd"}, "flags end where the config struct begins"},
	{"github.com/twmb/franz-go/pkg/kgo", []string{"cmd"}, "a client: the agent is a broker"},
	{"github.com/twmb/franz-go/pkg/kadm", []string{"cmd"}, "a client: the agent is a broker"},
	{"github.com/twmb/franz-go/pkg/kfake", nil, "an oracle for tests"},
}

// Limits that keep a page readable. They hold for code that is shipped; what
// tests say in one long table is fine.
const (
	maxFunctionLines    = 80
	maxFileLines        = 600
	maxInterfaceMethods = 8
)
