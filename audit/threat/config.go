package threat

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The least and the most that a threshold may be: a rule that speaks at every
// event, or never, is none.
const (
	minSpan  = time.Second
	maxSpan  = 7 * 24 * time.Hour
	maxCount = 1_000_000
)

// Set changes one threshold by its name, as configurations have it.
func (c *Config) Set(name, value string) error {
	counts := map[string]*int{
		"guesses": &c.Guesses, "replays": &c.Replays, "denials": &c.Denials,
		"violations": &c.Violations, "probes": &c.Probes, "runs": &c.PlaceRuns,
	}
	spans := map[string]*time.Duration{"window": &c.Window, "quiet": &c.Quiet, "silence": &c.Silence}
	switch {
	case counts[name] != nil:
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 || n > maxCount {
			return fmt.Errorf("%s: %q is not a number from 1 to %d", name, value, maxCount)
		}
		*counts[name] = n
	case spans[name] != nil:
		d, err := time.ParseDuration(value)
		if err != nil || d < minSpan || d > maxSpan {
			return fmt.Errorf("%s: %q is not a duration from %v to %v", name, value, minSpan, maxSpan)
		}
		*spans[name] = d
	case name == "hours":
		from, until, ok := strings.Cut(value, "-")
		a, errA := strconv.Atoi(from)
		b, errB := strconv.Atoi(until)
		if !ok || errA != nil || errB != nil || a < 0 || a > 23 || b < 1 || b > 24 || a == b {
			return fmt.Errorf("hours: %q is not FROM-UNTIL in full hours, such as 7-20", value)
		}
		c.HoursFrom, c.HoursUntil = a, b
	case name == "zone":
		zone, err := time.LoadLocation(value)
		if err != nil || value == "" || value == "Local" {
			return fmt.Errorf("zone: %q is not a time zone such as Europe/Berlin that this machine knows", value)
		}
		c.HoursIn = zone
	case name == "weekend":
		if value != "off" && value != "work" {
			return fmt.Errorf("weekend: %q is neither off nor work", value)
		}
		c.WeekendIsOff = value == "off"
	default:
		return fmt.Errorf("%q is no threshold; there are guesses, replays, denials, violations, probes, runs, window, quiet, silence, hours, zone and weekend", name)
	}
	return nil
}
