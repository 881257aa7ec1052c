package jail

// CollectLimits bounds what [Jail.Collect] takes; all must be set.
type CollectLimits struct {
	Files int   // regular files taken
	Bytes int64 // of content, together
	Depth int   // of folders
}
