package config

//lint:file-ignore ST1005 The errors are Kafka's messages, word for word, which clients show.

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// check returns nil if the value is one that Kafka would take for a config.
// The error is the reason only, in Kafka's words; the caller names config and
// value. An invalidError is the whole message.
type check func(value string) error

func anything(string) error { return nil }

func boolean(v string) error {
	if v = strings.TrimSpace(v); !strings.EqualFold(v, "true") && !strings.EqualFold(v, "false") {
		return errors.New("Expected value to be either true or false")
	}
	return nil
}

// integer checks values of type INT between low and high.
func integer(low, high int64) check { return number(kindInt, low, high) }

// long checks values of type LONG from low on.
func long(low int64) check { return number(kindLong, low, math.MaxInt64) }

// kind is Kafka's name of a type of numbers, and its size.
type kind struct {
	name string
	bits int
}

var (
	kindInt  = kind{"INT", 32}
	kindLong = kind{"LONG", 64}
)

func number(k kind, low, high int64) check {
	return func(v string) error {
		n, err := strconv.ParseInt(strings.TrimSpace(v), 10, k.bits)
		if err != nil {
			return fmt.Errorf("Not a number of type %s", k.name)
		}
		return within(n, low, high)
	}
}

func double(low, high float64) check {
	return func(v string) error {
		f, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
		if err != nil || math.IsNaN(f) {
			return errors.New("Not a number of type DOUBLE")
		}
		return within(f, low, high)
	}
}

func within[N int64 | float64](n, low, high N) error {
	switch {
	case n < low:
		return fmt.Errorf("Value must be at least %v", low)
	case n > high:
		return fmt.Errorf("Value must be no more than %v", high)
	}
	return nil
}

func oneOf(names ...string) check {
	return func(v string) error {
		if !slices.Contains(names, v) {
			return fmt.Errorf("String must be one of: %s", strings.Join(names, ", "))
		}
		return nil
	}
}

// oneOfAnyCase is oneOf without regard to case.
func oneOfAnyCase(names ...string) check {
	return func(v string) error {
		if !slices.ContainsFunc(names, func(name string) bool { return strings.EqualFold(name, v) }) {
			return fmt.Errorf("String must be one of (case insensitive): %s", strings.Join(names, ", "))
		}
		return nil
	}
}

// atLeastOneOf is listOf of lists that are not empty.
func atLeastOneOf(names ...string) check {
	return func(v string) error {
		if len(splitList(v)) == 0 {
			return errors.New("values must not be empty")
		}
		return listOf(names...)(v)
	}
}

// listOf checks lists, which may be empty, of distinct names.
func listOf(names ...string) check {
	return func(v string) error {
		list := splitList(v)
		for i, e := range list {
			switch {
			case e == "":
				return errors.New("values must not be empty")
			case slices.Contains(list[:i], e):
				return errors.New("values must not be duplicated")
			}
			if err := oneOf(names...)(e); err != nil {
				return err
			}
		}
		return nil
	}
}

func gzipLevel(v string) error {
	if err := integer(math.MinInt32, math.MaxInt32)(v); err != nil {
		return err
	}
	if n := parseInt(v); n != -1 && (n < 1 || n > 9) {
		return errors.New("Value must be between 1 and 9 or equal to -1")
	}
	return nil
}

// notTiered refuses true, as a broker without tiered storage does.
func notTiered(v string) error {
	if err := boolean(v); err != nil || !parseBool(v) {
		return err
	}
	return invalidError("Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage.")
}

var throttledReplica = regexp.MustCompile(`^[0-9]+:[0-9]+$`)

// throttledReplicas checks the config of that name, which its messages repeat.
func throttledReplicas(name string) check {
	return func(v string) error {
		list := splitList(v)
		if len(list) == 1 && list[0] == "*" {
			return nil
		}
		for _, e := range list {
			if e != "" && !throttledReplica.MatchString(e) {
				return invalidError(fmt.Sprintf("Invalid value [%s] for configuration %s: %[2]s must be the literal '*' or a list of replicas in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],...", strings.Join(list, ", "), name))
			}
		}
		return nil
	}
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

// parseBool parses a value that its definition has checked.
func parseBool(v string) bool { return strings.EqualFold(strings.TrimSpace(v), "true") }

// parseInt parses a value that its definition has checked.
func parseInt(v string) int64 {
	n, _ := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
	return n
}
