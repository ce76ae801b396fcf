package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/streamhouse/streamhouse/broker/traffic"
)

// costPath is where an agent tells what its traffic costs.
const costPath = "/cost"

func costCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "cost",
		Short: "Show an agent's traffic between zones, its requests, and what they cost",
		Long:  "Show an agent's traffic between zones, its requests to the object store, and what they are\nestimated to cost, beside what would be without routing by zones. The agent is asked at its\nadmin_address.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := load(cmd.Flags(), os.Environ())
			if err != nil {
				return err
			}
			report, err := askCost(cmd.Context(), l.AdminAddress)
			if err != nil {
				return fmt.Errorf("admin_address: %w: set it to that of an agent that runs", err)
			}
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), report)
			}
			return printCost(cmd.OutOrStdout(), report)
		},
	}
	addFlags(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// askCost asks the agent whose admin listener has that address.
func askCost(ctx context.Context, address string) (*traffic.Report, error) {
	ctx, cancel := context.WithTimeout(ctx, inspectTimeout)
	defer cancel()
	if host, port, err := net.SplitHostPort(address); err == nil {
		if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
			address = net.JoinHostPort("localhost", port)
		}
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+costPath, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s answers %s", r.URL, resp.Status)
	}
	report := new(traffic.Report)
	if err := json.NewDecoder(resp.Body).Decode(report); err != nil {
		return nil, fmt.Errorf("GET %s: %w", r.URL, err)
	}
	return report, nil
}

// printCost writes the report as two tables.
func printCost(w io.Writer, r *traffic.Report) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name string, of func(traffic.Period) string) {
		fmt.Fprintf(out, "%s\t%s\t%s\n", name, of(r.LastMinute), of(r.SinceStart))
	}
	size := func(n int64) string { return strings.ReplaceAll(humanize.IBytes(uint64(n)), " ", "") }
	dollars := func(d float64) string { return fmt.Sprintf("%.6f", d) }
	fmt.Fprintf(out, "ZONE %s\tLAST-MINUTE\tSINCE-START\n", orDash(r.Zone))
	row("produced", func(p traffic.Period) string { return size(p.ProducedBytes) })
	row("crossed zones", func(p traffic.Period) string { return size(p.CrossZoneBytes) })
	row("would have crossed", func(p traffic.Period) string { return size(p.WithoutZones.CrossZoneBytes) })
	row("PUT", func(p traffic.Period) string { return fmt.Sprint(p.Requests.Put) })
	row("GET", func(p traffic.Period) string { return fmt.Sprint(p.Requests.Get) })
	row("LIST", func(p traffic.Period) string { return fmt.Sprint(p.Requests.List) })
	row("DELETE", func(p traffic.Period) string { return fmt.Sprint(p.Requests.Delete) })
	row("$", func(p traffic.Period) string { return dollars(p.Dollars.Sum()) })
	row("$ an hour", func(p traffic.Period) string { return dollars(p.PerHour) })
	row("$ a GiB produced", func(p traffic.Period) string { return dollars(p.PerGiB) })
	row("$ an hour without zones", func(p traffic.Period) string { return dollars(p.WithoutZones.PerHour) })
	row("$ a GiB without zones", func(p traffic.Period) string { return dollars(p.WithoutZones.PerGiB) })
	fmt.Fprintln(out)
	fmt.Fprintln(out, "SINCE-START\tFROM\tTO\tBYTES")
	for _, l := range r.SinceStart.Links {
		fmt.Fprintf(out, "%s\t%s\t%s\t%d\n", l.Kind, orDash(l.From), orDash(l.To), l.Bytes)
	}
	return out.Flush()
}
