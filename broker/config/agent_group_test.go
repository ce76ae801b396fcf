package config_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/config"
)

func TestTopicsShowTheirAgentGroup(t *testing.T) {
	t.Parallel()
	plain := newBroker(t, nil)
	blue := newBroker(t, map[string]string{config.AgentGroup: "blue"})
	for _, test := range []struct {
		name     string
		topic    *config.Topic
		want     string
		source   kmsg.ConfigSource
		readOnly bool
	}{
		{"of the default group", plain.Topic(nil), "", kmsg.ConfigSourceDefaultConfig, false},
		{"of another", blue.Topic(nil), "blue", kmsg.ConfigSourceDynamicTopicConfig, true},
		{"made in another", plain.Topic(map[string]string{config.AgentGroup: "green"}), "green", kmsg.ConfigSourceDynamicTopicConfig, true},
		{"made in the default group", blue.Topic(map[string]string{config.AgentGroup: ""}), "", kmsg.ConfigSourceDefaultConfig, false},
	} {
		e := find(t, test.topic.Describe(), config.AgentGroup)
		if *e.Value != test.want || e.Source != test.source || e.ReadOnly != test.readOnly || len(e.Synonyms) > 1 {
			t.Errorf("%s: %q from %v, read-only %v, synonyms %v", test.name, *e.Value, e.Source, e.ReadOnly, e.Synonyms)
		}
	}
	if e := find(t, blue.Describe(), config.AgentGroup); *e.Value != "blue" || !e.ReadOnly {
		t.Errorf("of the agent: %q, read-only %v", *e.Value, e.ReadOnly)
	}
	if err := checkBroker(config.AgentGroup, "green"); !errors.Is(err, config.ErrInvalid) {
		t.Errorf("an agent's group is altered at run time: %v", err)
	}
}

func TestTopicGroups(t *testing.T) {
	t.Parallel()
	groups, err := config.ParseTopicGroups(" orders.=blue, orders.old.=, x=green ,b=b")
	if err != nil {
		t.Fatal(err)
	}
	const written = "b=b,orders.=blue,orders.old.=,x=green"
	if got := groups.String(); got != written {
		t.Errorf("written as %s, want %s", got, written)
	}
	for topic, want := range map[string]string{
		"orders.new": "orders. blue", "orders.": "orders. blue", "orders.old.1": "orders.old. ", "xx": "x green", "orders": "", "": "",
	} {
		got := ""
		if prefix, group, ok := groups.Of(topic); ok {
			got = prefix + " " + group
		}
		if got != want {
			t.Errorf("%s is in %q, want %q", topic, got, want)
		}
	}
	if _, _, ok := config.TopicGroups(nil).Of("x"); ok {
		t.Error("a group of no rules")
	}
	if all, err := config.ParseTopicGroups("=blue"); err != nil || all.String() != "=blue" {
		t.Errorf("all topics: %v, %v", all, err)
	}
	if none, err := config.ParseTopicGroups(""); err != nil || len(none) != 0 {
		t.Errorf("no rules: %v, %v", none, err)
	}
	for _, bad := range []string{"x", "x=b/c", "x y=b", "ü=b", "x=b,x=c", "x=b,", "x=" + strings.Repeat("b", 65)} {
		if got, err := config.ParseTopicGroups(bad); err == nil {
			t.Errorf("%q is taken as %v", bad, got)
		}
	}
}
