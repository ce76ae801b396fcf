package config

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// check returns nil if the value is one that Kafka would take for a config.
// The error is the reason only; the caller names config and value.
type check func(value string) error

func anything(string) error { return nil }

func boolean(v string) error {
	if !strings.EqualFold(v, "true") && !strings.EqualFold(v, "false") {
		return fmt.Errorf("Expected value to be either true or false")
	}
	return nil
}

func intIn(low, high int64) check {
	return func(v string) error {
		n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
		switch {
		case err != nil || n > maxInt && high <= maxInt:
			return fmt.Errorf("Not a number of type %s", map[bool]string{true: "INT", false: "LONG"}[high <= maxInt])
		case n < low:
			return fmt.Errorf("Value must be at least %d", low)
		case n > high:
			return fmt.Errorf("Value must be no more than %d", high)
		}
		return nil
	}
}

func floatIn(low, high float64) check {
	return func(v string) error {
		f, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
		switch {
		case err != nil:
			return fmt.Errorf("Not a number of type DOUBLE")
		case !(f >= low): // also NaN
			return fmt.Errorf("Value must be at least %g", low)
		case f > high:
			return fmt.Errorf("Value must be no more than %g", high)
		}
		return nil
	}
}

func oneOf(names ...string) check {
	return func(v string) error {
		if !slices.Contains(names, v) {
			return fmt.Errorf("String must be one of: %s", strings.Join(names, ", "))
		}
		return nil
	}
}

func listOf(names ...string) check {
	return func(v string) error {
		for _, e := range splitList(v) {
			if err := oneOf(names...)(e); err != nil {
				return err
			}
		}
		return nil
	}
}

func either(a, b check) check {
	return func(v string) error {
		if a(v) == nil {
			return nil
		}
		return b(v)
	}
}

var throttledReplica = regexp.MustCompile(`^[0-9]+:[0-9]+$`)

func throttledReplicas(v string) error {
	for _, e := range splitList(v) {
		if e != "*" && !throttledReplica.MatchString(e) {
			return fmt.Errorf("%s must be the literal '*' or a list of replicas in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],...", v)
		}
	}
	return nil
}

// splitList splits a value of type LIST; an empty value is an empty list.
func splitList(v string) []string {
	if strings.TrimSpace(v) == "" {
		return nil
	}
	parts := strings.Split(v, ",")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	return parts
}
