// Command document prints docs/COMPATIBILITY.md, which is made of the report of the last whole run.
package main

import (
	"fmt"
	"os"

	"github.com/streamhouse/streamhouse/compat-tests/report"
)

func main() {
	last, err := report.Last()
	if err != nil {
		fmt.Fprintln(os.Stderr, "document:", err)
		os.Exit(1)
	}
	fmt.Print(last.Markdown())
}
