// Command streamhouse runs a StreamHouse agent, a Kafka broker without disks,
// and looks at what it stores.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

func main() {
	root := &cobra.Command{
		Use:           "streamhouse",
		Short:         "A Kafka broker without disks: records in object storage, the rest in PostgreSQL",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(agentCommand(), configCommand(), segmentCommand(), versionCommand())
	if err := root.ExecuteContext(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "streamhouse:", oneLine(err.Error()))
		os.Exit(1)
	}
}

// oneLine joins the lines of a message: drivers spread theirs over several.
func oneLine(message string) string {
	var b strings.Builder
	for line := range strings.Lines(message) {
		line = strings.TrimSpace(line)
		switch {
		case line == "":
		case b.Len() == 0:
			b.WriteString(line)
		case strings.HasSuffix(b.String(), ":"):
			b.WriteString(" " + line)
		default:
			b.WriteString("; " + line)
		}
	}
	return b.String()
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), "streamhouse", version()) },
	}
}
