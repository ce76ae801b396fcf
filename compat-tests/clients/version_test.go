package clients

import (
	"regexp"
	"testing"
)

func TestVersionsAreKnown(t *testing.T) {
	number := regexp.MustCompile(`^[0-9]+\.[0-9]+\.[0-9]+`)
	for _, client := range []Client{NewFranz(nil), NewKafkaGo(nil), NewSarama(nil), NewKcat(nil)} {
		if version := client.Version(); !number.MatchString(version) {
			t.Errorf("%s has the version %q", client.Name(), version)
		}
	}
}
