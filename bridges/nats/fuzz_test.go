package nats

import (
	"testing"

	"github.com/agenticraft/node/a2a"
)

// Whatever a payload holds, what comes out of it into a path is a task's ID.
func FuzzTaskPayload(f *testing.F) {
	f.Add([]byte(`{"task":"0123456789abcdef0123456789abcdef"}`))
	f.Add([]byte(`{"task":"../../keys"}`))
	f.Add([]byte(`{"task":"0123456789abcdef0123456789abcdef","task":"x"}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		task, err := readTask(payload)
		if (err == nil) != a2a.ValidTaskID(task) {
			t.Errorf("%q gives %q, %v", payload, task, err)
		}
	})
}

// A queued message from anywhere names no subject but its own task's.
func FuzzTaskOfAQueuedMessage(f *testing.F) {
	f.Add([]byte(`{"message":{"messageId":"1","role":"ROLE_USER","parts":[{"text":"x"}]}}`))
	f.Add([]byte("\x00"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if task := taskOf(raw); task != unreadable && !a2a.ValidTaskID(task) {
			t.Errorf("task %q", task)
		}
	})
}

func TestSemver(t *testing.T) {
	for version, want := range map[string]string{
		"v1.2.3": "1.2.3", "1.2.3-rc.1": "1.2.3-rc.1", "devel": "0.0.0-devel", "": "0.0.0-devel",
		"v0.0.0-20260908191801-89a6a09411d5+dirty": "0.0.0-20260908191801-89a6a09411d5",
	} {
		if got := semver(version); got != want {
			t.Errorf("semver(%q) = %q, want %q", version, got, want)
		}
	}
}
