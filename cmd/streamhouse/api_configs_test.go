package main

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/protocol/batch/batchtest"
)

// describeConfigs describes one resource, by the names of its configs.
func describeConfigs(w *wire, kind kmsg.ConfigResourceType, name string, keys ...string) (map[string]kmsg.DescribeConfigsResponseResourceConfig, int16) {
	w.t.Helper()
	r := kmsg.NewPtrDescribeConfigsRequest()
	r.IncludeSynonyms = true
	r.Resources = []kmsg.DescribeConfigsRequestResource{{ResourceType: kind, ResourceName: name, ConfigNames: keys}}
	resp := ask[*kmsg.DescribeConfigsResponse](w, 4, r).Resources[0]
	configs := map[string]kmsg.DescribeConfigsResponseResourceConfig{}
	for _, c := range resp.Configs {
		configs[c.Name] = c
	}
	return configs, resp.ErrorCode
}

// change is one operation of IncrementalAlterConfigs; a value of "-" is null.
type change struct {
	op          kmsg.IncrementalAlterConfigOp
	name, value string
}

// incrementally alters one resource and returns the error code.
func incrementally(w *wire, validateOnly bool, kind kmsg.ConfigResourceType, name string, changes ...change) int16 {
	w.t.Helper()
	res := kmsg.IncrementalAlterConfigsRequestResource{ResourceType: kind, ResourceName: name}
	for _, c := range changes {
		config := kmsg.IncrementalAlterConfigsRequestResourceConfig{Name: c.name, Op: c.op, Value: &c.value}
		if c.value == "-" {
			config.Value = nil
		}
		res.Configs = append(res.Configs, config)
	}
	r := kmsg.NewPtrIncrementalAlterConfigsRequest()
	r.ValidateOnly = validateOnly
	r.Resources = []kmsg.IncrementalAlterConfigsRequestResource{res}
	return ask[*kmsg.IncrementalAlterConfigsResponse](w, 1, r).Resources[0].ErrorCode
}

const (
	ofTopic  = kmsg.ConfigResourceTypeTopic
	ofBroker = kmsg.ConfigResourceTypeBroker

	opSet      = kmsg.IncrementalAlterConfigOpSet
	opDelete   = kmsg.IncrementalAlterConfigOpDelete
	opAppend   = kmsg.IncrementalAlterConfigOpAppend
	opSubtract = kmsg.IncrementalAlterConfigOpSubtract
)

func TestTopicConfigs(t *testing.T) {
	bothStores(t, func(t *testing.T, s stores) {
		a := startAgent(t, s)
		w := dial(t, a.addr)
		tp := makeTopic(w, "configs", 1, "retention.ms", "1000")
		for _, step := range []struct {
			name     string
			validate bool
			resource string
			changes  []change
			want     *kerr.Error
			key      string
			value    string
		}{
			{"set", false, tp.name, []change{{opSet, "retention.ms", "2000"}}, nil, "retention.ms", "2000"},
			{"validate only", true, tp.name, []change{{opSet, "retention.ms", "3000"}}, nil, "retention.ms", "2000"},
			{"delete", false, tp.name, []change{{opDelete, "retention.ms", "-"}}, nil, "retention.ms", "604800000"},
			{"append to the default", false, tp.name, []change{{opAppend, "cleanup.policy", "compact"}}, nil, "cleanup.policy", "delete,compact"},
			{"append what is there", false, tp.name, []change{{opAppend, "cleanup.policy", "compact"}}, nil, "cleanup.policy", "delete,compact"},
			{"subtract", false, tp.name, []change{{opSubtract, "cleanup.policy", "delete"}}, nil, "cleanup.policy", "compact"},
			{"append what is not valid", false, tp.name, []change{{opAppend, "cleanup.policy", "burn"}}, kerr.InvalidConfig, "cleanup.policy", "compact"},
			{"append to what is no list", false, tp.name, []change{{opAppend, "retention.ms", "1"}}, kerr.InvalidConfig, "retention.ms", "604800000"},
			{"one of two is bad", false, tp.name, []change{{opSet, "retention.ms", "1"}, {opSet, "segment.ms", "0"}}, kerr.InvalidConfig, "retention.ms", "604800000"},
			{"unknown config", false, tp.name, []change{{opSet, "nope", "1"}}, kerr.InvalidConfig, "retention.ms", "604800000"},
			{"null", false, tp.name, []change{{opSet, "retention.ms", "-"}}, kerr.InvalidRequest, "retention.ms", "604800000"},
			{"the same twice", false, tp.name, []change{{opSet, "retention.ms", "1"}, {opDelete, "retention.ms", "-"}}, kerr.InvalidRequest, "retention.ms", "604800000"},
			{"unknown operation", false, tp.name, []change{{9, "retention.ms", "1"}}, kerr.InvalidRequest, "retention.ms", "604800000"},
			{"unknown topic", false, "nope", []change{{opSet, "retention.ms", "1"}}, kerr.UnknownTopicOrPartition, "retention.ms", "604800000"},
		} {
			wantCode(t, step.name, incrementally(w, step.validate, ofTopic, step.resource, step.changes...), step.want)
			got, _ := describeConfigs(w, ofTopic, tp.name, step.key)
			if len(got) != 1 || str(got[step.key].Value) != step.value {
				t.Errorf("%s: %s = %s, want %s", step.name, step.key, str(got[step.key].Value), step.value)
			}
		}
		// What was set is in force: the topic is compacted, and wants keys.
		wantCode(t, "no key", produce(w, tp, 0, batchtest.Of("record")).ErrorCode, kerr.InvalidRecord)

		t.Run("AlterConfigs resets what it does not name", func(t *testing.T) {
			r := kmsg.NewPtrAlterConfigsRequest()
			r.Resources = []kmsg.AlterConfigsRequestResource{{ResourceType: ofTopic, ResourceName: tp.name, Configs: []kmsg.AlterConfigsRequestResourceConfig{
				{Name: "segment.ms", Value: kmsg.StringPtr("5000")},
			}}}
			wantCode(t, "alter", ask[*kmsg.AlterConfigsResponse](w, 2, r).Resources[0].ErrorCode, nil)
			all, _ := describeConfigs(w, ofTopic, tp.name)
			if str(all["segment.ms"].Value) != "5000" || str(all["cleanup.policy"].Value) != "delete" {
				t.Errorf("%+v", all)
			}
			r.Resources[0].Configs[0].Value = nil
			wantCode(t, "null", ask[*kmsg.AlterConfigsResponse](w, 2, r).Resources[0].ErrorCode, kerr.InvalidRequest)
		})
		t.Run("describe", func(t *testing.T) {
			for name, want := range map[string]*kerr.Error{"nope": kerr.UnknownTopicOrPartition, "no pe": kerr.InvalidTopicException} {
				_, code := describeConfigs(w, ofTopic, name)
				wantCode(t, name, code, want)
			}
			_, code := describeConfigs(w, kmsg.ConfigResourceTypeBrokerLogger, "99")
			wantCode(t, "loggers of another", code, kerr.InvalidRequest)
		})
	})
}

func TestBrokerConfigsAreDefaultsOfTopics(t *testing.T) {
	bothStores(t, func(t *testing.T, s stores) {
		a := startAgent(t, s, func(s *Settings) { s.Kafka.Configs["num.partitions"], s.Kafka.Configs["group.max.size"] = "2", "1" })
		w := dial(t, a.addr)
		tp := makeTopic(w, "defaults", 1)
		self := fmt.Sprint(a.node.Agent.Self().NodeID)

		before, code := describeConfigs(w, ofBroker, self)
		wantCode(t, "describe", code, nil)
		if c := before["num.partitions"]; str(c.Value) != "2" || c.Source != kmsg.ConfigSourceStaticBrokerConfig || c.ReadOnly {
			t.Errorf("num.partitions: %+v", c)
		}
		if c := before["group.max.size"]; str(c.Value) != "1" || c.Source != kmsg.ConfigSourceStaticBrokerConfig || !c.ReadOnly {
			t.Errorf("group.max.size: %+v", c)
		}
		if c := before["offsets.retention.minutes"]; str(c.Value) != "10080" || c.Source != kmsg.ConfigSourceDefaultConfig {
			t.Errorf("offsets.retention.minutes: %+v", c)
		}
		wantCode(t, "set", incrementally(w, false, ofBroker, "", change{opSet, "log.retention.ms", "1234"}), nil)
		topic, _ := describeConfigs(w, ofTopic, tp.name, "retention.ms")
		if c := topic["retention.ms"]; str(c.Value) != "1234" || c.Source != kmsg.ConfigSourceDynamicDefaultBrokerConfig ||
			len(c.ConfigSynonyms) != 2 || c.ConfigSynonyms[0].Name != "log.retention.ms" {
			t.Errorf("retention.ms of the topic: %+v", c)
		}
		cluster, _ := describeConfigs(w, ofBroker, "")
		if len(cluster) != 1 || str(cluster["log.retention.ms"].Value) != "1234" {
			t.Errorf("cluster-wide: %+v", cluster)
		}
		wantCode(t, "set on the topic", incrementally(w, false, ofTopic, tp.name, change{opSet, "retention.ms", "99"}), nil)
		topic, _ = describeConfigs(w, ofTopic, tp.name, "retention.ms")
		if c := topic["retention.ms"]; str(c.Value) != "99" || len(c.ConfigSynonyms) != 3 {
			t.Errorf("retention.ms of the topic: %+v", c)
		}
		for name, test := range map[string]struct {
			resource string
			change   change
			want     *kerr.Error
		}{
			"read-only":        {"", change{opSet, "broker.id", "7"}, kerr.InvalidRequest},
			"a setting":        {"", change{opSet, "group.max.size", "7"}, kerr.InvalidRequest},
			"unknown":          {"", change{opSet, "nope", "7"}, kerr.InvalidRequest},
			"bad value":        {"", change{opSet, "log.retention.ms", "x"}, kerr.InvalidRequest},
			"back to defaults": {"", change{opDelete, "log.retention.ms", "-"}, nil},
		} {
			wantCode(t, name, incrementally(w, false, ofBroker, test.resource, test.change), test.want)
		}
		for _, other := range []string{"12345", "x"} {
			_, code := describeConfigs(w, ofBroker, other)
			wantCode(t, other, code, kerr.InvalidRequest)
		}
	})
}
