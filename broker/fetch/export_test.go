package fetch

// NextEpoch is nextEpoch.
var NextEpoch = nextEpoch
