package compattests

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/compat-tests/clients"
	"github.com/streamhouse/streamhouse/compat-tests/scenario"
)

// administration has the client administrate topics and groups.
func (r *clientRun) administration(t *testing.T) {
	t.Helper()
	r.feature(t, featureTopics, r.adminTopics)
	r.feature(t, featureConfigs, r.adminConfigs)
	r.feature(t, featurePartitions, r.adminPartitions)
	r.feature(t, featureGroups, r.adminGroups)
}

// adminTopics creates, deletes and creates a topic anew.
func (r *clientRun) adminTopics(ctx context.Context) error {
	topic := "admin-topics-" + r.Name()
	for range 2 {
		if err := r.CreateTopic(ctx, topic, nil); err != nil {
			return fmt.Errorf("create: %w", err)
		}
		if err := r.awaitPartitions(ctx, topic, scenario.Partitions); err != nil {
			return err
		}
		if err := r.DeleteTopic(ctx, topic); err != nil {
			return fmt.Errorf("delete: %w", err)
		}
		if err := r.awaitListed(ctx, topic, false); err != nil {
			return err
		}
	}
	return nil
}

// adminConfigs reads and sets configs of a topic.
func (r *clientRun) adminConfigs(ctx context.Context) error {
	topic := "admin-configs-" + r.Name()
	if err := r.CreateTopic(ctx, topic, map[string]string{"retention.ms": "-1", "max.message.bytes": "1000000"}); err != nil {
		return fmt.Errorf("create: %w", err)
	}
	// Clients may ask any broker for the configs that there are to alter, and each takes its moment to learn of the topic.
	if err := r.awaitListed(ctx, topic, true); err != nil {
		return err
	}
	want := map[string]string{"retention.ms": "-1", "max.message.bytes": "1000000", "cleanup.policy": "delete"}
	if err := r.awaitConfigs(ctx, topic, want); err != nil {
		return err
	}
	want["max.message.bytes"] = "2000000"
	if err := r.AlterTopicConfig(ctx, topic, "max.message.bytes", want["max.message.bytes"]); err != nil {
		return fmt.Errorf("alter: %w", err)
	}
	return r.awaitConfigs(ctx, topic, want)
}

func (r *clientRun) awaitConfigs(ctx context.Context, topic string, want map[string]string) error {
	return settle(ctx, func() error {
		configs, err := r.TopicConfigs(ctx, topic)
		if errors.Is(err, clients.ErrUnsupported) {
			return fmt.Errorf("describe: %w", err)
		}
		if err != nil {
			// A broker that was not asked to create the topic may not know of it yet.
			return notYet{fmt.Errorf("describe: %w", err)}
		}
		for name, value := range want {
			if configs[name] != value {
				return notYet{fmt.Errorf("%s is %q, want %q", name, configs[name], value)}
			}
		}
		return nil
	})
}

// adminPartitions adds partitions to a topic.
func (r *clientRun) adminPartitions(ctx context.Context) error {
	topic := "admin-partitions-" + r.Name()
	if err := r.CreateTopic(ctx, topic, nil); err != nil {
		return fmt.Errorf("create: %w", err)
	}
	if err := r.CreatePartitions(ctx, topic, scenario.Partitions+2); err != nil {
		return fmt.Errorf("create partitions: %w", err)
	}
	return r.awaitPartitions(ctx, topic, scenario.Partitions+2)
}

func (r *clientRun) awaitPartitions(ctx context.Context, topic string, want int) error {
	return settle(ctx, func() error {
		count, err := r.PartitionCount(ctx, topic)
		if errors.Is(err, clients.ErrUnsupported) {
			return fmt.Errorf("count partitions: %w", err)
		}
		if err != nil || count != want {
			// A broker that was not asked to create the topic may not know of it yet.
			return notYet{errors.Join(fmt.Errorf("%d partitions, want %d", count, want), err)}
		}
		return nil
	})
}

// awaitListed waits until every broker lists the topic, or none does. Clients differ in what they say of a topic that is
// not there, so franz-go is asked.
func (r *clientRun) awaitListed(ctx context.Context, topic string, listed bool) error {
	for _, address := range r.target.bootstrap() {
		broker := clients.NewFranz([]string{address})
		err := settle(ctx, func() error {
			topics, err := broker.Topics(ctx)
			if err == nil && slices.Contains(topics, topic) != listed {
				return notYet{fmt.Errorf("%s is listed: %t, want %t", topic, !listed, listed)}
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// adminGroups lists, describes and deletes a group.
func (r *clientRun) adminGroups(ctx context.Context) error {
	group := "admin-group-" + r.Name()
	if err := r.emptyGroup(ctx, group); err != nil {
		return err
	}
	if err := r.describes(ctx, group, "Empty", 0); err != nil {
		return err
	}
	if err := r.DeleteGroup(ctx, group); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	groups, err := r.Groups(ctx)
	if err == nil && slices.Contains(groups, group) {
		err = errors.New("a deleted group is listed")
	}
	return err
}

// emptyGroup makes a group that has committed offsets and no members, and lists and describes it while it has one.
func (r *clientRun) emptyGroup(ctx context.Context, group string) (err error) {
	topic := &growingTopic{clientRun: r, name: "admin-groups-" + r.Name()}
	if err := r.CreateTopic(ctx, topic.name, scenario.TopicConfigs()); err != nil {
		return fmt.Errorf("create: %w", err)
	}
	if err := topic.grow(ctx); err != nil {
		return err
	}
	m, err := topic.joined(ctx, group)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Leave(ctx)) }()
	if err := m.Commit(ctx); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	groups, err := r.Groups(ctx)
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	if !slices.Contains(groups, group) {
		return fmt.Errorf("the groups %v lack %q", groups, group)
	}
	return r.describes(ctx, group, "Stable", 1)
}

func (r *clientRun) describes(ctx context.Context, group, state string, members int) error {
	gotState, gotMembers, err := r.DescribeGroup(ctx, group)
	if err != nil {
		return fmt.Errorf("describe: %w", err)
	}
	if gotState != state || gotMembers != members {
		return fmt.Errorf("described as %s with %d members, want %s with %d", gotState, gotMembers, state, members)
	}
	return nil
}

// notYet is an error that may go by itself.
type notYet struct{ error }

// settle tries until the error is nil, or none that may go by itself.
func settle(ctx context.Context, try func() error) error {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := try()
		if _, wait := err.(notYet); !wait {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return err
		}
	}
}
