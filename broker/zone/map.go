package zone

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Map says which subnets a zone has. The zero value knows of none. It is immutable.
type Map struct {
	subnets []subnet // the longest prefixes first, then by address
}

type subnet struct {
	prefix netip.Prefix
	zone   string
}

// NewMap makes a map of the subnets of each zone. An error says what the operator has
// to correct.
func NewMap(zones map[string][]netip.Prefix) (Map, error) {
	var m Map
	for _, zone := range slices.Sorted(maps.Keys(zones)) {
		if err := CheckName(zone); err != nil {
			return Map{}, err
		}
		for _, prefix := range zones[zone] {
			switch {
			case !prefix.IsValid():
				return Map{}, fmt.Errorf("a subnet of zone %s is none", zone)
			case prefix != prefix.Masked():
				return Map{}, fmt.Errorf("%s of zone %s has bits set beyond its length: is %s meant?", prefix, zone, prefix.Masked())
			case prefix.Addr().Is4In6():
				return Map{}, fmt.Errorf("%s of zone %s: write it as a subnet of IPv4", prefix, zone)
			}
			m.subnets = append(m.subnets, subnet{prefix, zone})
		}
	}
	slices.SortFunc(m.subnets, func(a, b subnet) int {
		return cmp.Or(cmp.Compare(b.prefix.Bits(), a.prefix.Bits()), a.prefix.Addr().Compare(b.prefix.Addr()))
	})
	for i := range m.subnets {
		if i > 0 && m.subnets[i].prefix == m.subnets[i-1].prefix {
			return Map{}, fmt.Errorf("%s is given to two zones, or to one twice: %s and %s", m.subnets[i].prefix, m.subnets[i-1].zone, m.subnets[i].zone)
		}
	}
	return m, nil
}

// CheckName refuses names of zones that a tag could not have. The error is for the
// operator.
func CheckName(zone string) error {
	switch {
	case zone == "":
		return errors.New("a zone has no name")
	case len(zone) > maxName:
		return fmt.Errorf("the name of a zone has more than %d bytes", maxName)
	case strings.ContainsAny(zone, separators+"="):
		return fmt.Errorf("the name of zone %q must have no blanks and none of , ; & | =", zone)
	}
	return nil
}

// ParseMap parses zone=subnet,subnet;zone=subnet.
func ParseMap(text string) (Map, error) {
	zones := map[string][]netip.Prefix{}
	for _, part := range strings.Split(text, ";") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		zone, list, found := strings.Cut(part, "=")
		if zone = strings.TrimSpace(zone); !found || zone == "" {
			return Map{}, fmt.Errorf("%q is not zone=subnet,subnet such as us-east-1a=10.0.1.0/24,10.0.2.0/24", part)
		}
		if _, twice := zones[zone]; twice {
			return Map{}, fmt.Errorf("zone %s is there twice", zone)
		}
		prefixes, err := ParseSubnets(zone, strings.Split(list, ",")...)
		if err != nil {
			return Map{}, err
		}
		zones[zone] = prefixes
	}
	return NewMap(zones)
}

// ParseSubnets parses the subnets of a zone.
func ParseSubnets(zone string, texts ...string) ([]netip.Prefix, error) {
	prefixes := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		prefix, err := netip.ParsePrefix(strings.TrimSpace(text))
		if err != nil {
			return nil, fmt.Errorf("%q of zone %s is not a subnet such as 10.0.1.0/24", text, zone)
		}
		prefixes[i] = prefix
	}
	return prefixes, nil
}

// String is what ParseMap parses, by zones.
func (m Map) String() string {
	zones := map[string][]string{}
	for _, s := range m.subnets {
		zones[s.zone] = append(zones[s.zone], s.prefix.String())
	}
	parts := make([]string, 0, len(zones))
	for _, zone := range slices.Sorted(maps.Keys(zones)) {
		parts = append(parts, zone+"="+strings.Join(zones[zone], ","))
	}
	return strings.Join(parts, ";")
}

// Zones are the zones that have subnets, by name.
func (m Map) Zones() []string {
	var zones []string
	for _, s := range m.subnets {
		zones = append(zones, s.zone)
	}
	slices.Sort(zones)
	return slices.Compact(zones)
}

// Find returns the zone of the smallest subnet that has the address.
func (m Map) Find(addr netip.Addr) (zone string, ok bool) {
	for i := range m.subnets {
		if s := &m.subnets[i]; s.prefix.Contains(addr) {
			return s.zone, true
		}
	}
	return "", false
}
