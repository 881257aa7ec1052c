package threat

// Held is how many subjects a detector keeps.
func Held(d *Detector) int {
	return len(d.counts) + len(d.quiet) + len(d.places)
}
