package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

func configCommand() *cobra.Command {
	var reference bool
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Print the effective configuration and where each value comes from",
		Long:  "Print the configuration that `streamhouse agent` would run with, given the same flags,\nenvironment and file, and where each value comes from. Secrets are not shown.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if reference {
				return writeReference(cmd.OutOrStdout())
			}
			l, err := load(cmd.Flags(), os.Environ())
			if err != nil {
				return err
			}
			return l.print(cmd.OutOrStdout())
		},
	}
	addFlags(cmd.Flags())
	cmd.Flags().BoolVar(&reference, "reference", false, "print the reference of all settings, in Markdown")
	return cmd
}

// print writes the effective configuration as a file that could be loaded,
// with the sources as comments.
func (l *loaded) print(w io.Writer) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, rootKey+":")
	section := ""
	for _, s := range l.table {
		key, indent := s.key, "  "
		if group, name, nested := strings.Cut(s.key, "."); nested {
			if group != section {
				fmt.Fprintf(out, "  %s:\n", group)
				section = group
			}
			key, indent = name, "    "
		}
		source := l.sources[s.key]
		if source == "" {
			source = "default"
		}
		shown := s.value.Shown()
		if s.value.Type() == kindText || s.value.Type() == kindURL {
			shown = strconv.Quote(shown)
		}
		fmt.Fprintf(out, "%s%s: %s\t# %s\n", indent, key, shown, source)
	}
	return out.Flush()
}

// writeReference writes docs/CONFIGURATION.md.
func writeReference(w io.Writer) error {
	var b strings.Builder
	b.WriteString(`# Configuration

Generated from the definitions in ` + "`cmd/streamhouse/settings.go` by `make docs`" + `; do not edit.

Nothing has to be set: ` + "`streamhouse agent`" + ` runs on SQLite and a folder. Settings come from a
file (` + "`--config streamhouse.yaml`" + `), from the environment over it, and from flags over both.
` + "`streamhouse config`" + `, with the same flags, prints what results and where each value comes from.

` + "```yaml" + `
streamhouse:
  agent_id: agent-1
  address: 0.0.0.0:9092
  advertised_address: kafka-1.example.com:9092
  multi_agent: true
  metadata_url: postgres://streamhouse@db.example.com/streamhouse
  object_url: s3://my-bucket/streamhouse?region=eu-central-1
  flush:
    puts_per_second: 20
` + "```" + `

The same setting is spelled ` + "`flush.puts_per_second`" + ` below ` + "`streamhouse:`" + ` in the file,
` + "`STREAMHOUSE_FLUSH_PUTS_PER_SECOND`" + ` in the environment and ` + "`--flush-puts-per-second`" + ` as a flag.
Durations are written as ` + "`250ms`" + `, sizes as ` + "`8MiB`" + `. Settings below ` + "`kafka`" + ` that have the name of one of
Kafka's broker configs, such as ` + "`kafka.group_max_size`" + ` of ` + "`group.max.size`" + `, are written as Kafka writes it. Unknown keys, variables and flags are errors, but for the
variables that Kubernetes makes for a service of the name ` + "`streamhouse`" + `. Secrets belong into the file or the
environment: flags are visible to every user of the machine.

| Setting | Default | What it is |
|---|---|---|
`)
	defaults := defaultSettings()
	defaults.AgentID = "the host's name"
	for _, s := range settingsTable(defaults) {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", s.key, reference(s.value.String()), s.doc)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func reference(v string) string {
	if v == "" {
		return ""
	}
	return "`" + v + "`"
}
