package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/metadata/postgres"
	"github.com/streamhouse/streamhouse/metadata/sqlite"
)

// inspectTimeout bounds a look at the metadata store.
const inspectTimeout = 10 * time.Second

func agentsCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "agents",
		Short: "List the agents and how long ago they were heard of",
		Long:  "List the agents whose sessions have not ended. " + inspectLong,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return inspect(cmd, func(ctx context.Context, store metadata.Inspector) error {
				sessions, err := store.Sessions(ctx)
				if err != nil {
					return err
				}
				if asJSON {
					return writeJSON(cmd.OutOrStdout(), shownAgents(sessions))
				}
				return printAgents(cmd.OutOrStdout(), sessions)
			})
		},
	}
	addFlags(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func leasesCommand() *cobra.Command {
	var (
		asJSON bool
		filter metadata.LeaseFilter
	)
	cmd := &cobra.Command{
		Use:   "leases",
		Short: "List who leads which partition, for how long already and until when",
		Long:  "List the leases of partitions, and of the shards of group coordinators. " + inspectLong,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return inspect(cmd, func(ctx context.Context, store metadata.Inspector) error {
				leases, err := store.Leases(ctx, filter)
				if err != nil {
					return err
				}
				if len(leases) == metadata.InspectRows {
					fmt.Fprintf(cmd.ErrOrStderr(), "streamhouse: only %d leases are shown: ask for less with --topic or --agent\n", len(leases))
				}
				if asJSON {
					return writeJSON(cmd.OutOrStdout(), shownLeases(leases))
				}
				return printLeases(cmd.OutOrStdout(), leases)
			})
		},
	}
	addFlags(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().StringVar(&filter.Topic, "topic", "", "only partitions of this topic")
	cmd.Flags().StringVar(&filter.AgentID, "agent", "", "only what the agent of this id holds")
	return cmd
}

const inspectLong = "The database is asked itself, whether agents run or not,\nand nothing is changed there. Settings are those of `streamhouse agent`; metadata_url or data_dir, and cluster, say where it is.\nAll agent groups are shown."

// inspect opens the configured metadata store for reading and looks at it.
func inspect(cmd *cobra.Command, look func(context.Context, metadata.Inspector) error) error {
	l, err := load(cmd.Flags(), os.Environ())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), inspectTimeout)
	defer cancel()
	store, done, err := openInspector(ctx, l.Settings)
	if err == nil {
		err = errors.Join(look(ctx, store), done())
	}
	switch {
	case err == nil:
		return nil
	case !l.postgres() && errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("metadata_url: %w: set metadata_url or data_dir to those of the agents", err)
	}
	return fmt.Errorf("metadata_url: %w", adviseOnMetadata(ctx, err))
}

// openInspector opens the metadata store for reading; done closes it.
func openInspector(ctx context.Context, s *Settings) (_ metadata.Inspector, done func() error, err error) {
	if s.postgres() {
		i, err := postgres.Inspect(ctx, s.MetadataURL, s.schema())
		if err != nil {
			return nil, nil, err
		}
		return i, i.Close, nil
	}
	i, err := sqlite.Inspect(ctx, s.metadataFile())
	if err != nil {
		return nil, nil, err
	}
	return i, i.Close, nil
}

// shownAgent is an agent as JSON has it, at /agents and in the command.
type shownAgent struct {
	AgentID             string  `json:"agent_id"`
	NodeID              int32   `json:"node_id"`
	Session             string  `json:"session"`
	Host                string  `json:"host"`
	Port                int32   `json:"port"`
	AvailabilityZone    string  `json:"availability_zone"`
	AgentGroup          string  `json:"agent_group"`
	HeartbeatAgeSeconds float64 `json:"heartbeat_age_seconds"`
	UptimeSeconds       float64 `json:"uptime_seconds"`
}

func shownAgents(sessions []metadata.AgentSession) []shownAgent {
	out := make([]shownAgent, len(sessions))
	for i, a := range sessions {
		out[i] = shownAgent{
			AgentID: a.ID, NodeID: a.NodeID, Session: a.Session.String(), Host: a.Host, Port: a.Port,
			AvailabilityZone: a.Zone, AgentGroup: a.Group,
			HeartbeatAgeSeconds: a.HeartbeatAge.Seconds(), UptimeSeconds: a.Uptime.Seconds(),
		}
	}
	return out
}

// shownLease is a lease as JSON has it, at /leases and in the command.
type shownLease struct {
	Topic            string  `json:"topic"`
	Partition        int32   `json:"partition"`
	AgentGroup       string  `json:"agent_group"`
	AgentID          string  `json:"agent_id"`
	Epoch            int64   `json:"epoch"`
	LeaderEpoch      int32   `json:"leader_epoch"`
	AgeSeconds       float64 `json:"age_seconds"`
	ExpiresInSeconds float64 `json:"expires_in_seconds"`
}

func shownLeases(leases []metadata.HeldLease) []shownLease {
	out := make([]shownLease, len(leases))
	for i, l := range leases {
		out[i] = shownLease{
			Topic: l.Topic, Partition: l.Partition, AgentGroup: l.Group,
			AgentID: l.AgentID, Epoch: l.Epoch, LeaderEpoch: l.LeaderEpoch,
			AgeSeconds: l.Age.Seconds(), ExpiresInSeconds: l.ExpiresIn.Seconds(),
		}
	}
	return out
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func printAgents(w io.Writer, sessions []metadata.AgentSession) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "AGENT\tNODE\tADDRESS\tZONE\tGROUP\tHEARTBEAT-AGE\tUPTIME\tSESSION")
	for _, a := range sessions {
		fmt.Fprintf(out, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\n", a.ID, a.NodeID, net.JoinHostPort(a.Host, strconv.Itoa(int(a.Port))),
			orDash(a.Zone), orDash(a.Group), shortly(a.HeartbeatAge), shortly(a.Uptime), a.Session)
	}
	return out.Flush()
}

func printLeases(w io.Writer, leases []metadata.HeldLease) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "TOPIC\tPARTITION\tAGENT\tEPOCH\tLEADER-EPOCH\tAGE\tEXPIRES-IN\tGROUP")
	for _, l := range leases {
		topic := l.Topic
		if metadata.IsShard(l.Key) {
			topic = "(groups)" // no topic can be called that
		}
		fmt.Fprintf(out, "%s\t%d\t%s\t%d\t%d\t%s\t%s\t%s\n",
			topic, l.Partition, l.AgentID, l.Epoch, l.LeaderEpoch, shortly(l.Age), shortly(l.ExpiresIn), orDash(l.Group))
	}
	return out.Flush()
}

// shortly is a duration without what nobody reads.
func shortly(d time.Duration) string {
	if d.Abs() < time.Minute {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
