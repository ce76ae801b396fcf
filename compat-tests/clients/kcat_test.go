package clients

import (
	"reflect"
	"testing"

	"github.com/streamhouse/streamhouse/compat-tests/scenario"
)

func TestParseKcatOutput(t *testing.T) {
	const output = "0 7 1700 2 5\nk1a\nb|cn=v,null=NULL,empty=" + recordDelimiter +
		"2 0 1701 -1 -1\n" + recordDelimiter +
		"1 3 1702 0 0\n" + recordDelimiter
	want := []scenario.Record{
		{
			Partition: 0, Offset: 7, Timestamp: 1700, Key: []byte("k1"), Value: []byte("a\nb|c"),
			Headers: []scenario.Header{{Key: "n", Value: []byte("v")}, {Key: "null"}, {Key: "empty", Value: []byte{}}},
		},
		{Partition: 2, Offset: 0, Timestamp: 1701},
		{Partition: 1, Offset: 3, Timestamp: 1702, Key: []byte{}, Value: []byte{}},
	}
	got, err := parse([]byte(output))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("parsed %+v, want %+v", got, want)
	}
}

func TestParseKcatRebalances(t *testing.T) {
	const prefix = "% Group g rebalanced (memberid rdkafka-1): "
	tests := []struct {
		line     string
		assigned []int32
		ok       bool
	}{
		{prefix + "assigned: t [2], t [0]", []int32{2, 0}, true},
		{prefix + "assigned: ", nil, true},
		{prefix + "revoked: t [2]", nil, true},
		{"% Reached end of topic t [0] at offset 1", nil, false},
		{"", nil, false},
	}
	for _, test := range tests {
		assigned, ok := parseRebalance(test.line)
		if ok != test.ok || !reflect.DeepEqual(assigned, test.assigned) {
			t.Errorf("%q: %v, %t", test.line, assigned, ok)
		}
	}
}

func FuzzParseKcatOutput(f *testing.F) {
	f.Add([]byte("0 7 1700 2 5\nk1a\nb|cn=v" + recordDelimiter))
	f.Add([]byte("0 7 1700 2 9999999\nk1"))
	f.Fuzz(func(t *testing.T, output []byte) {
		if records, err := parse(output); err == nil && len(records) == 0 && len(output) > 0 {
			t.Error("output without records was accepted")
		}
	})
}
