package sqlite

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/streamhouse/streamhouse/metadata/sqlstore"
)

// Input implements sqlstore.Dialect: the table travels as one JSON array of
// rows, with blobs and text in hex, so that any bytes survive.
func (dialect) Input(alias string, first int, cols ...sqlstore.Column) string {
	var b strings.Builder
	b.WriteString("(SELECT key + 1 AS ord")
	for i, c := range cols {
		switch c.Type {
		case sqlstore.Bytes:
			fmt.Fprintf(&b, ", unhex(value ->> %d) AS %s", i, c.Name)
		case sqlstore.Text:
			fmt.Fprintf(&b, ", CAST(unhex(value ->> %d) AS TEXT) AS %s", i, c.Name)
		default:
			fmt.Fprintf(&b, ", value ->> %d AS %s", i, c.Name)
		}
	}
	fmt.Fprintf(&b, " FROM json_each($%d)) AS %s", first, alias)
	return b.String()
}

// InputArgs implements sqlstore.Dialect.
func (dialect) InputArgs(cols ...any) []any {
	b := []byte{'['}
	for row := range length(cols[0]) {
		if row > 0 {
			b = append(b, ',')
		}
		b = append(b, '[')
		for i, col := range cols {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendJSON(b, col, row)
		}
		b = append(b, ']')
	}
	return []any{string(append(b, ']'))}
}

func length(col any) int {
	switch c := col.(type) {
	case [][]byte:
		return len(c)
	case []int32:
		return len(c)
	case []int64:
		return len(c)
	case []string:
		return len(c)
	default:
		return 0
	}
}

func appendJSON(b []byte, col any, row int) []byte {
	switch c := col.(type) {
	case [][]byte:
		return appendHex(b, c[row])
	case []int32:
		return strconv.AppendInt(b, int64(c[row]), 10)
	case []int64:
		return strconv.AppendInt(b, c[row], 10)
	case []string:
		return appendHex(b, []byte(strings.ToValidUTF8(c[row], string(utf8.RuneError))))
	default:
		return append(b, "null"...)
	}
}

func appendHex(b, value []byte) []byte {
	b = append(b, '"')
	b = hex.AppendEncode(b, value)
	return append(b, '"')
}
