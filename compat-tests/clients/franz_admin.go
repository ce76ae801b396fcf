package clients

import (
	"context"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/streamhouse/streamhouse/compat-tests/scenario"
)

// admin calls use with an administrator that is closed afterwards.
func (f *Franz) admin(use func(*kadm.Client) error) error {
	return f.connect(func(client *kgo.Client) error { return use(kadm.NewClient(client)) })
}

func (f *Franz) CreateTopic(ctx context.Context, topic string, configs map[string]string) error {
	return f.admin(func(admin *kadm.Client) error {
		values := make(map[string]*string, len(configs))
		for name, value := range configs {
			values[name] = &value
		}
		_, err := admin.CreateTopic(ctx, scenario.Partitions, -1, values, topic)
		return err
	})
}

// Topics lists the names of all topics.
func (f *Franz) Topics(ctx context.Context) (topics []string, err error) {
	err = f.admin(func(admin *kadm.Client) error {
		listed, err := admin.ListTopics(ctx)
		topics = listed.Names()
		return err
	})
	return topics, err
}

func (f *Franz) PartitionCount(ctx context.Context, topic string) (count int, err error) {
	err = f.admin(func(admin *kadm.Client) error {
		topics, err := admin.ListTopics(ctx, topic)
		if err != nil {
			return err
		}
		count = len(topics[topic].Partitions)
		return topics[topic].Err
	})
	return count, err
}

func (f *Franz) CreatePartitions(ctx context.Context, topic string, total int) error {
	return f.admin(func(admin *kadm.Client) error {
		responses, err := admin.UpdatePartitions(ctx, total, topic)
		if err != nil {
			return err
		}
		return responses.Error()
	})
}

func (f *Franz) TopicConfigs(ctx context.Context, topic string) (configs map[string]string, err error) {
	err = f.admin(func(admin *kadm.Client) error {
		described, err := admin.DescribeTopicConfigs(ctx, topic)
		if err != nil {
			return err
		}
		resource, err := described.On(topic, nil)
		if err != nil {
			return err
		}
		configs = make(map[string]string, len(resource.Configs))
		for _, config := range resource.Configs {
			configs[config.Key] = config.MaybeValue()
		}
		return resource.Err
	})
	return configs, err
}

func (f *Franz) AlterTopicConfig(ctx context.Context, topic, name, value string) error {
	return f.admin(func(admin *kadm.Client) error {
		responses, err := admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: name, Value: &value}}, topic)
		if err != nil {
			return err
		}
		response, err := responses.On(topic, nil)
		if err != nil {
			return err
		}
		return response.Err
	})
}

func (f *Franz) DeleteTopic(ctx context.Context, topic string) error {
	return f.admin(func(admin *kadm.Client) error {
		_, err := admin.DeleteTopic(ctx, topic)
		return err
	})
}

func (f *Franz) Groups(ctx context.Context) (groups []string, err error) {
	err = f.admin(func(admin *kadm.Client) error {
		listed, err := admin.ListGroups(ctx)
		groups = listed.Groups()
		return err
	})
	return groups, err
}

func (f *Franz) DescribeGroup(ctx context.Context, group string) (state string, members int, err error) {
	err = f.admin(func(admin *kadm.Client) error {
		described, err := admin.DescribeGroups(ctx, group)
		if err != nil {
			return err
		}
		state, members = described[group].State, len(described[group].Members)
		return described[group].Err
	})
	return state, members, err
}

func (f *Franz) DeleteGroup(ctx context.Context, group string) error {
	return f.admin(func(admin *kadm.Client) error {
		_, err := admin.DeleteGroup(ctx, group)
		return err
	})
}
