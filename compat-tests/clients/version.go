package clients

import "runtime/debug"

// moduleVersion is the version of a Go module that this program is built with, as its tags spell it but for the v, or
// "unknown" if the build does not tell.
func moduleVersion(path string) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			if module.Path == path {
				return module.Version[len("v"):]
			}
		}
	}
	return "unknown"
}
