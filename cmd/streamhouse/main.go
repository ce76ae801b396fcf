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
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(agentCommand(), agentsCommand(), leasesCommand(), topicGroupCommand(), costCommand(), configCommand(), segmentCommand(), versionCommand())
	if err := root.ExecuteContext(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "streamhouse:", oneLine(err.Error()))
		os.Exit(1)
	}
}

// oneLine joins the lines of a message, as drivers spread theirs over several,
// without those that only repeat the one before.
func oneLine(message string) string {
	var lines []string
	for line := range strings.Lines(message) {
		line = strings.TrimSpace(line)
		last := len(lines) - 1
		switch {
		case line == "":
		case last >= 0 && strings.HasPrefix(line, lines[last]):
			lines[last] = line
		default:
			lines = append(lines, line)
		}
	}
	return strings.ReplaceAll(strings.Join(lines, "; "), ":; ", ": ")
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), "streamhouse", version()) },
	}
}
