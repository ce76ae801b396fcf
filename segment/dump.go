package segment

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// timeLayout is RFC 3339 in UTC with the milliseconds that Kafka's times have.
const timeLayout = "2006-01-02T15:04:05.000Z07:00"

// Dump writes the footer for people to read: what the object is, where it comes
// from, and one line a section.
func Dump(w io.Writer, f *Footer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tw, "segment\t%s\n", f.ID)
	fmt.Fprintf(tw, "version\t%d\n", f.Version)
	fmt.Fprintf(tw, "agent\t%s\n", f.Origin.AgentID)
	fmt.Fprintf(tw, "session\t%s\n", f.Origin.Session)
	fmt.Fprintf(tw, "sequence\t%d\n", f.Origin.Sequence)
	fmt.Fprintf(tw, "created\t%s\n", formatTime(f.Origin.CreatedAt))
	fmt.Fprintf(tw, "sections\t%d\n", len(f.Sections))
	if err := tw.Flush(); err != nil {
		return fmt.Errorf("dump segment: %w", err)
	}
	fmt.Fprintln(tw, "\nTOPIC ID\tPARTITION\tEPOCH\tPOSITION\tLENGTH\tBATCHES\tRECORDS\tMAX TIMESTAMP\tCRC32C")
	for i := range f.Sections {
		s := &f.Sections[i]
		fmt.Fprintf(tw, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t%08x\n", s.TopicID, s.Partition, s.LeaderEpoch,
			s.Position, s.Length, s.Batches, s.Records, formatTime(s.MaxTimestamp), s.CRC)
	}
	if err := tw.Flush(); err != nil {
		return fmt.Errorf("dump segment: %w", err)
	}
	return nil
}

// DumpJSON writes the footer as one indented JSON object, with the names of the
// fields in FORMAT.md.
func DumpJSON(w io.Writer, f *Footer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	if err := enc.Encode(f); err != nil {
		return fmt.Errorf("dump segment: %w", err)
	}
	return nil
}

func formatTime(ms int64) string {
	if ms < 0 {
		return "-"
	}
	return time.UnixMilli(ms).UTC().Format(timeLayout)
}
