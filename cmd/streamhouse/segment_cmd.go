package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/streamhouse/streamhouse/segment"
	"github.com/streamhouse/streamhouse/segment/objstore"
	"github.com/streamhouse/streamhouse/segment/objstore/driver"
)

func segmentCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "segment", Short: "Look at the objects that hold the records"}
	var asJSON bool
	dump := &cobra.Command{
		Use:   "dump OBJECT...",
		Short: "Print what objects say about themselves",
		Long:  "Print the footers of objects. OBJECT is a file, or with --object-url a key in that store.",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return eachSegment(cmd, args, func(_ string, r io.ReaderAt, size int64) error {
				footer, err := segment.DecodeFooter(r, size)
				if err != nil {
					return err
				}
				if asJSON {
					return segment.DumpJSON(cmd.OutOrStdout(), footer)
				}
				return segment.Dump(cmd.OutOrStdout(), footer)
			})
		},
	}
	dump.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	verify := &cobra.Command{
		Use:   "verify OBJECT...",
		Short: "Check objects: structure, checksums, record batches",
		Long:  "Check objects, and exit with a status other than 0 if one has a fault. OBJECT is as for dump.",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return eachSegment(cmd, args, func(name string, r io.ReaderAt, size int64) error {
				report, err := segment.Verify(r, size)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: ok: %d sections, %d batches, %d records, %d bytes of them\n",
					name, len(report.Footer.Sections), report.Batches, report.Records, report.Bytes)
				return err
			})
		},
	}
	for _, c := range []*cobra.Command{dump, verify} {
		c.Flags().String("object-url", "", "object store of the keys: s3://… or file://…")
		c.Flags().String("cluster", "", "virtual cluster whose keys they are in that store")
		cmd.AddCommand(c)
	}
	return cmd
}

// eachSegment opens the files or objects one after the other. All are looked
// at; the errors are joined into one.
func eachSegment(cmd *cobra.Command, names []string, look func(name string, r io.ReaderAt, size int64) error) error {
	rawURL, _ := cmd.Flags().GetString("object-url")
	cluster, _ := cmd.Flags().GetString("cluster")
	if err := checkClusterName(cluster); err != nil {
		return err
	}
	open := openFile
	if rawURL != "" {
		store, err := driver.Open(objectsOf(rawURL, cluster))
		if err != nil {
			return err
		}
		defer store.Close()
		open = func(name string) (io.ReaderAt, int64, func() error, error) {
			info, err := store.Head(cmd.Context(), name)
			if err != nil {
				return nil, 0, nil, err
			}
			return objstore.NewReaderAt(cmd.Context(), store, name, info.Size), info.Size, func() error { return nil }, nil
		}
	}
	var failed []string
	for _, name := range names {
		r, size, done, err := open(name)
		if err == nil {
			err = errors.Join(look(name, r, size), done())
		}
		if err != nil {
			failed = append(failed, fmt.Sprintf("%s: %v", name, err))
		}
	}
	if len(failed) > 0 {
		return errors.New(strings.Join(failed, "; "))
	}
	return nil
}

func openFile(name string) (io.ReaderAt, int64, func() error, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, 0, nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, nil, errors.Join(err, f.Close())
	}
	return f, info.Size(), f.Close, nil
}
