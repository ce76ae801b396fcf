package main

import (
	"errors"

	"github.com/streamhouse/streamhouse/broker/config"
)

func topicGroups(p *config.TopicGroups) value {
	return &bound[config.TopicGroups]{place: p, kind: kindText, parse: config.ParseTopicGroups, print: config.TopicGroups.String}
}

func (s *Settings) checkGroups() error {
	if !config.LegalAgentGroup(s.AgentGroup) {
		return errors.New("agent_group must be empty or at most 64 letters, digits, '.', '_' and '-'")
	}
	return nil
}
