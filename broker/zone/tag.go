package zone

import "strings"

// The keys of tags that name a zone. Besides StreamHouse's own there are those of
// WarpStream (two spellings) and of Inkless (the present one and the former), whose
// users need not change their clients.
const (
	ownTag        = "zone"
	warpStreamTag = "warpstream_az"
	warpStreamAbb = "ws_az"
	inklessTag    = "diskless_az"
	inklessFormer = "inkless_az"
)

// separators stand between the tags of a client id. WarpStream takes commas, Inkless
// commas and spaces; semicolons are in use with it, too. Names of zones have hyphens
// and underscores.
const separators = ",;&| \t\r\n"

// maxName bounds the names of zones and of clients that are believed, in bytes.
const maxName = 255

// tagged returns the zone in a client id: the value of its first tag of that kind,
// which begins at the beginning of the client id or behind a separator, and goes up
// to the next one. Keys are case-sensitive.
func tagged(clientID string) (zone string, ok bool) {
	for rest := clientID; rest != ""; {
		var tag string
		if i := strings.IndexAny(rest, separators); i >= 0 {
			tag, rest = rest[:i], rest[i+1:]
		} else {
			tag, rest = rest, ""
		}
		key, value, _ := strings.Cut(tag, "=")
		switch key {
		case ownTag, warpStreamTag, warpStreamAbb, inklessTag, inklessFormer:
			if value != "" && len(value) <= maxName {
				return value, true
			}
		}
	}
	return "", false
}
