package main

import "runtime/debug"

// version is the module's version, which names the commit where no release was
// built; "devel" where even that is not known, as under `go run`.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}
