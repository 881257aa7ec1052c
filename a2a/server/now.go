package server

import "time"

// now is the time of a status.
func now() time.Time { return stamp(time.Now()) }

// stamp is t as A2A writes it: UTC, in milliseconds, of which JSON shows all three
// digits (A2A 1.0.1, 5.6.1; ProtoJSON knows 0, 3, 6 and 9). The SDK's codecs write times
// as encoding/json does, without the zeros at their end: a time that would lose one is
// given as a millisecond later.
func stamp(t time.Time) time.Time {
	const zero = 10 // what divides the milliseconds that end in one
	t = t.UTC().Truncate(time.Millisecond)
	if t.UnixMilli()%zero == 0 {
		t = t.Add(time.Millisecond)
	}
	return t
}
