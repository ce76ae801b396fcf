package ingesttest

import (
	"strings"
	"testing"
)

// A checker that has never complained proves nothing.
func TestCheckerCatches(t *testing.T) {
	a := Batch(t, "a", 7, 0, 0, 2)
	b := Batch(t, "b", 7, 0, 2, 1)
	c := Batch(t, "c", 7, 0, 3, 1)
	sound := []stored{{0, a.Batch}, {2, b.Batch}}
	acked := []Sent{{Batch: a, Fate: Acked, Offset: 0}, {Batch: b, Fate: Acked, Offset: 2}}
	for name, tc := range map[string]struct {
		log   []stored
		tries []Sent
		want  string // "" if there is nothing to complain of
	}{
		"a sound log":                  {log: sound, tries: acked},
		"a duplicate told as such":     {log: sound, tries: append(acked, acked[0])},
		"a failure that is not there":  {log: sound, tries: append(acked, Sent{Batch: c, Fate: Failed})},
		"a failure tried successfully": {log: sound, tries: append(acked, Sent{Batch: a, Fate: Failed})},
		"an unknown that is there":     {log: append(sound, stored{3, c.Batch}), tries: append(acked, Sent{Batch: c, Fate: Unknown})},
		"a lost batch":                 {log: sound[:1], tries: acked, want: `"b" was acknowledged at 2, is at []`},
		"a wrong offset":               {log: sound, tries: []Sent{acked[0], {Batch: b, Offset: 5}}, want: `"b" was acknowledged at 5, is at [2]`},
		"a duplicate":                  {log: append(sound, stored{3, b.Batch}), tries: acked, want: "is at [2 3]"},
		"a failure that is there":      {log: append(sound, stored{3, c.Batch}), tries: append(acked, Sent{Batch: c, Fate: Failed}), want: `"c" was failed, is at [3]`},
		"a phantom":                    {log: append(sound, stored{3, c.Batch}), tries: acked, want: "was never sent"},
		"a reordering":                 {log: []stored{{0, b.Batch}, {1, a.Batch}}, tries: []Sent{{Batch: a, Offset: 1}, {Batch: b, Offset: 0}}, want: "goes from sequence 2 to 0"},
	} {
		t.Run(name, func(t *testing.T) {
			var text strings.Builder
			for _, err := range compare(tc.log, tc.tries) {
				text.WriteString(err.Error() + "\n")
			}
			if tc.want == "" && text.Len() > 0 || !strings.Contains(text.String(), tc.want) {
				t.Errorf("got %q, want %q", text.String(), tc.want)
			}
		})
	}
}
