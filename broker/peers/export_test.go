package peers

// Watched is watched, for tests.
var Watched = watched
