package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/streamhouse/streamhouse/metadata"
)

// moveTimeout bounds a change of the metadata store.
const moveTimeout = 30 * time.Second

func topicGroupCommand() *cobra.Command {
	var from, to string
	cmd := &cobra.Command{
		Use:   "topic-group TOPIC --from GROUP --to GROUP",
		Short: "Move a topic from one agent group to another",
		Long: "Move a topic with its records from one agent group to another; the default group is ''.\n" +
			"Agents of the first forget it within topology_interval, and take no records from now on.\n" +
			"Settings are those of `streamhouse agent`; metadata_url or data_dir say where the metadata are, and cluster in which virtual cluster.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := load(cmd.Flags(), os.Environ())
			if err != nil {
				return err
			}
			if err := moveTopic(cmd.Context(), l.Settings, args[0], from, to); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "topic %s is of the agent group %q\n", args[0], to)
			return nil
		},
	}
	addFlags(cmd.Flags())
	cmd.Flags().StringVar(&from, "from", "", "agent group in which the topic is")
	cmd.Flags().StringVar(&to, "to", "", "agent group in which it is to be")
	for _, name := range []string{"from", "to"} {
		_ = cmd.MarkFlagRequired(name) // there are such flags
	}
	return cmd
}

// moveTopic moves a topic by its name, in the store itself: no agent sees both
// groups.
func moveTopic(ctx context.Context, s *Settings, name, from, to string) (err error) {
	for _, group := range []string{from, to} {
		if !metadata.LegalAgentGroup(group) {
			return fmt.Errorf("no agent group can be called %q", group)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, moveTimeout)
	defer cancel()
	s.AgentGroup = from
	store, err := openMetadata(ctx, s, uuid.New(), prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		return fmt.Errorf("metadata_url: %w", adviseOnMetadata(ctx, err))
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	cluster, err := store.Topology(ctx, 0)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(cluster.Topics, func(t metadata.Topic) bool { return t.Name == name })
	if i < 0 {
		return fmt.Errorf("there is no topic %s in the agent group %q", name, from)
	}
	err = store.AlterTopicConfigs(ctx, cluster.Topics[i].ID, metadata.ConfigChange{AgentGroup: &to})
	switch {
	case errors.Is(err, metadata.ErrUnknownOutcome):
		return fmt.Errorf("%w: run the command again", err)
	case errors.Is(err, metadata.ErrTopicExists):
		return fmt.Errorf("there is another topic %s in the agent group %q", name, to)
	}
	return err
}
