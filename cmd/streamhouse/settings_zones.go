package main

import (
	"fmt"
	"net/netip"

	"github.com/streamhouse/streamhouse/broker/zone"
)

// subnetsOfZones is a zone.Map, which the file may write as a map.
type subnetsOfZones struct{ *bound[zone.Map] }

func subnets(p *zone.Map) value {
	return &subnetsOfZones{&bound[zone.Map]{place: p, kind: kindText, parse: zone.ParseMap, print: zone.Map.String}}
}

// SetTree sets what the file says: a list of subnets for each zone, or one subnet.
func (v *subnetsOfZones) SetTree(tree map[string]any) error {
	zones := make(map[string][]netip.Prefix, len(tree))
	for name, list := range tree {
		items, ok := list.([]any)
		if !ok {
			items = []any{list}
		}
		texts := make([]string, len(items))
		for i, item := range items {
			if texts[i], ok = item.(string); !ok {
				return fmt.Errorf("zone %s must have a list of subnets such as [10.0.1.0/24]", name)
			}
		}
		var err error
		if zones[name], err = zone.ParseSubnets(name, texts...); err != nil {
			return err
		}
	}
	m, err := zone.NewMap(zones)
	if err == nil {
		*v.place = m
	}
	return err
}

func (s *Settings) checkZones() error {
	if s.AvailabilityZone == "" {
		return nil
	}
	if err := zone.CheckName(s.AvailabilityZone); err != nil {
		return fmt.Errorf("availability_zone: %w", err)
	}
	return nil
}
