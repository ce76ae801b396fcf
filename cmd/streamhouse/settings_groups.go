package main

import "github.com/streamhouse/streamhouse/broker/config"

// topicGroups are rules as config.ParseTopicGroups reads them.
func topicGroups(p *config.TopicGroups) value {
	return &bound[config.TopicGroups]{place: p, kind: kindText, parse: config.ParseTopicGroups, print: config.TopicGroups.String}
}
