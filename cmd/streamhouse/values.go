package main

import (
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/pflag"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/config"
)

// value is a setting's place, as flags, the environment and the file write it,
// and as it may be shown.
type value interface {
	pflag.Value
	// Shown is String without secrets.
	Shown() string
}

// tree is a value that the file may write as a map.
type tree interface {
	value
	SetTree(map[string]any) error
}

// bound is a value over a place, with how to parse and to print it.
type bound[T any] struct {
	place *T
	kind  string
	parse func(string) (T, error)
	print func(T) string
	shown func(T) string
}

func (b *bound[T]) Set(s string) error {
	v, err := b.parse(s)
	if err == nil {
		*b.place = v
	}
	return err
}

func (b *bound[T]) Type() string { return b.kind }

func (b *bound[T]) String() string {
	if b == nil || b.place == nil {
		return "" // pflag asks a zero value
	}
	return b.print(*b.place)
}

func (b *bound[T]) Shown() string {
	if b.shown != nil {
		return b.shown(*b.place)
	}
	return b.String()
}

// kindNumber is a whole number, or one with a fraction.
const kindNumber = "number"

// The kinds that are written in quotes.
const (
	kindText = "text"
	kindURL  = "url"
)

func text(p *string) value {
	same := func(s string) string { return s }
	return &bound[string]{place: p, kind: kindText, parse: func(s string) (string, error) { return s, nil }, print: same}
}

// secretURL is a URL whose password and keys are not shown.
func secretURL(p *string) value {
	v := text(p).(*bound[string])
	v.kind, v.shown = kindURL, redact
	return v
}

// secretText is a text that is not shown.
func secretText(p *string) value {
	v := text(p).(*bound[string])
	v.shown = func(s string) string {
		if s == "" {
			return ""
		}
		return "xxxxx"
	}
	return v
}

// redact replaces what is secret in a URL.
func redact(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "(not a URL)"
	}
	q := u.Query()
	for _, key := range []string{"password", "sslpassword", "access_key", "secret_key"} {
		if q.Has(key) {
			q.Set(key, "xxxxx")
			u.RawQuery = q.Encode()
		}
	}
	return u.Redacted()
}

// withoutQuery is what a URL names, without how it is reached and with what
// secrets.
func withoutQuery(raw string) string {
	place, _, _ := strings.Cut(redact(raw), "?")
	return place
}

const kindBoolean = "true or false"

func boolean(p *bool) value {
	return &bound[bool]{place: p, kind: kindBoolean, parse: func(s string) (bool, error) {
		v, err := strconv.ParseBool(s)
		if err != nil {
			return false, fmt.Errorf("%q is neither true nor false", s)
		}
		return v, nil
	}, print: strconv.FormatBool}
}

func integer(p *int) value {
	return &bound[int]{place: p, kind: kindNumber, parse: func(s string) (int, error) {
		v, err := strconv.Atoi(s)
		if err != nil {
			return 0, fmt.Errorf("%q is not a whole number", s)
		}
		return v, nil
	}, print: strconv.Itoa}
}

func float(p *float64) value {
	return &bound[float64]{place: p, kind: kindNumber, parse: func(s string) (float64, error) {
		v, err := strconv.ParseFloat(s, 64)
		if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
			return 0, fmt.Errorf("%q is not a number", s)
		}
		return v, nil
	}, print: func(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }}
}

func duration(p *time.Duration) value {
	return &bound[time.Duration]{place: p, kind: "duration", parse: func(s string) (time.Duration, error) {
		v, err := time.ParseDuration(s)
		if err != nil {
			return 0, fmt.Errorf("%q is not a duration such as 250ms or 30s", s)
		}
		return v, nil
	}, print: time.Duration.String}
}

// size is a number of bytes.
func size(p *int64) value {
	return &bound[int64]{place: p, kind: "size", parse: func(s string) (int64, error) {
		v, err := humanize.ParseBytes(s)
		if err != nil || v > 1<<62 {
			return 0, fmt.Errorf("%q is not a size such as 65536, 512KiB or 8MiB", s)
		}
		return int64(v), nil
	}, print: printSize}
}

// auto is how a size is written that follows from other settings: -1 until it is
// resolved.
const auto = "auto"

// sizeOrAuto is a size that may be left to be resolved.
func sizeOrAuto(p *int64) value {
	v := size(p).(*bound[int64])
	parse := v.parse
	v.parse = func(s string) (int64, error) {
		if s == auto {
			return -1, nil
		}
		return parse(s)
	}
	v.print = func(n int64) string {
		if n < 0 {
			return auto
		}
		return printSize(n)
	}
	return v
}

// printSize prints a size exactly, in the largest unit that divides it.
func printSize(v int64) string {
	for _, u := range []struct {
		name string
		n    int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if v >= u.n && v%u.n == 0 {
			return strconv.FormatInt(v/u.n, 10) + u.name
		}
	}
	return strconv.FormatInt(v, 10)
}

// kafkaConfig is one of Kafka's broker configs, written as Kafka writes it. It is
// among set once it is set.
type kafkaConfig struct {
	def *config.Definition
	set map[string]string
}

func (c *kafkaConfig) Set(v string) error {
	if err := c.def.Check(v); err != nil {
		return err
	}
	c.set[c.def.Name] = v
	return nil
}

func (c *kafkaConfig) Type() string {
	switch c.def.Type {
	case kmsg.ConfigTypeInt, kmsg.ConfigTypeLong:
		return kindNumber
	}
	return kindText
}

func (c *kafkaConfig) String() string {
	if c == nil || c.def == nil {
		return "" // pflag asks a zero value
	}
	if v, ok := c.set[c.def.Name]; ok {
		return v
	}
	return c.def.Default
}

func (c *kafkaConfig) Shown() string { return c.String() }

func choice(p *string, from ...string) value {
	v := text(p).(*bound[string])
	v.kind = strings.Join(from, ", ")
	v.parse = func(s string) (string, error) {
		if !slices.Contains(from, s) {
			return "", fmt.Errorf("%q is none of %s", s, strings.Join(from, ", "))
		}
		return s, nil
	}
	return v
}
