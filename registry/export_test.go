package registry

// Memory is tables in memory, for tests of the admission rules alone.
type Memory = memory
