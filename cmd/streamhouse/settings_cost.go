package main

import (
	"errors"
	"slices"
	"strings"

	"github.com/streamhouse/streamhouse/broker/traffic"
)

// costSettings are the prices of what the agent's traffic takes.
func costSettings(s *Settings) []setting {
	p := &s.Cost
	return []setting{
		{"cost.transfer_per_gib", float(&p.TransferPerGiB), "Dollars for a GiB from one availability zone to another, with what is billed at both ends. It is for the estimates of /cost and of metrics, as are the following. The defaults are what Amazon lists for us-east-1, in November 2026."},
		{"cost.put_per_million", float(&p.PutPerMillion), "Dollars for a million PUT requests to S3. On a folder, requests are free."},
		{"cost.get_per_million", float(&p.GetPerMillion), "Dollars for a million GET and HEAD requests."},
		{"cost.list_per_million", float(&p.ListPerMillion), "Dollars for a million LIST requests."},
		{"cost.delete_per_million", float(&p.DeletePerMillion), "Dollars for a million DELETE requests."},
	}
}

// maxPrice keeps what is reckoned with prices a number.
const maxPrice = 1e6

// checkPrices checks what costSettings binds.
func (s *Settings) checkPrices() error {
	p := &s.Cost
	all := []float64{p.TransferPerGiB, p.PutPerMillion, p.GetPerMillion, p.ListPerMillion, p.DeletePerMillion}
	if slices.Min(all) < 0 || slices.Max(all) > maxPrice {
		return errors.New("settings below cost are prices in dollars: they must be from 0 to a million")
	}
	return nil
}

// prices are those of the stores that are configured.
func (s *Settings) prices() traffic.Prices {
	if strings.HasPrefix(s.ObjectURL, "s3://") {
		return s.Cost
	}
	return traffic.Prices{TransferPerGiB: s.Cost.TransferPerGiB}
}
