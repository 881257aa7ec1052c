package server

import (
	"encoding/json"
	"regexp"
	"testing"
	"time"
)

// Times have three digits behind the second, whichever they are (A2A 1.0.1, 5.6.1).
func TestTimesHaveMilliseconds(t *testing.T) {
	pattern := regexp.MustCompile(`^"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"$`)
	start := time.Date(2026, 11, 28, 23, 59, 58, 999_999, time.FixedZone("east", 3600))
	for ms := range 2000 {
		at := start.Add(time.Duration(ms) * time.Millisecond)
		got := stamp(at)
		text, err := json.Marshal(got)
		if err != nil || !pattern.Match(text) {
			t.Fatalf("%v is written %s, %v", at, text, err)
		}
		if off := got.Sub(at); off < -time.Millisecond || off > time.Millisecond {
			t.Fatalf("%v is written %s", at, text)
		}
	}
}
