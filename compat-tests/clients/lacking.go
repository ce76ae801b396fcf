package clients

import "context"

// lacking is what a client embeds that administrates nothing.
type lacking struct{}

func (lacking) CreatePartitions(context.Context, string, int) error { return ErrUnsupported }

func (lacking) TopicConfigs(context.Context, string) (map[string]string, error) {
	return nil, ErrUnsupported
}

func (lacking) AlterTopicConfig(context.Context, string, string, string) error { return ErrUnsupported }

func (lacking) DeleteTopic(context.Context, string) error { return ErrUnsupported }

func (lacking) Groups(context.Context) ([]string, error) { return nil, ErrUnsupported }

func (lacking) DescribeGroup(context.Context, string) (string, int, error) {
	return "", 0, ErrUnsupported
}

func (lacking) DeleteGroup(context.Context, string) error { return ErrUnsupported }
