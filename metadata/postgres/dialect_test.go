package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/metadata/sqlstore"
)

func TestClassify(t *testing.T) {
	reported := func(severity, code string) error {
		return mark(&pgconn.PgError{SeverityUnlocalized: severity, Code: code})
	}
	for name, tc := range map[string]struct {
		err  error
		want sqlstore.Class
	}{
		"serialization failure":           {reported("ERROR", "40001"), sqlstore.Conflict},
		"deadlock":                        {reported("ERROR", "40P01"), sqlstore.Conflict},
		"lock timeout":                    {reported("ERROR", "55P03"), sqlstore.Conflict},
		"statement timeout":               {reported("ERROR", "57014"), sqlstore.Unavailable},
		"disk full":                       {reported("ERROR", "53100"), sqlstore.Unavailable},
		"became a standby":                {reported("ERROR", "25006"), sqlstore.Unavailable},
		"terminated":                      {reported("FATAL", "57P01"), sqlstore.Unknown},
		"crashed":                         {reported("PANIC", "58030"), sqlstore.Unknown},
		"connection failure":              {reported("ERROR", "08006"), sqlstore.Unknown},
		"unique violation":                {reported("ERROR", "23505"), sqlstore.Fault},
		"undefined function":              {reported("ERROR", "42883"), sqlstore.Fault},
		"end of the stream":               {mark(io.ErrUnexpectedEOF), sqlstore.Unknown},
		"patience ended":                  {mark(context.DeadlineExceeded), sqlstore.Unknown},
		"no connection":                   {fmt.Errorf("connect: %w: %w", errNothingDone, reported("FATAL", "57P03")), sqlstore.Unavailable},
		"stream ended before a commit":    {fmt.Errorf("%w: %w", errNothingDone, mark(io.ErrUnexpectedEOF)), sqlstore.Unavailable},
		"an answer of the transaction's":  {metadata.ErrTopicExists, sqlstore.Fault},
		"an error of the row's own types": {errors.New("cannot scan"), sqlstore.Fault},
	} {
		t.Run(name, func(t *testing.T) {
			if got := (dialect{}).Classify(tc.err); got != tc.want {
				t.Errorf("class %d, not %d", got, tc.want)
			}
		})
	}
}
