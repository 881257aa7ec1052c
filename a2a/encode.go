package a2a

import (
	"encoding/json"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
)

// MarshalTask gives the JSON of a task: what encoding/json makes of it, in another
// order of members and without spare escapes (FuzzMarshalTask holds it to that), in
// a quarter of the time.
func MarshalTask(t *sdk.Task) ([]byte, error) {
	w := canonicalWriter{out: make([]byte, 0, 2<<10), signed: true}
	w.task(t)
	if w.err != nil { // such as a number that only it writes
		return json.Marshal(t)
	}
	return w.out, nil
}

func (w *canonicalWriter) task(t *sdk.Task) {
	w.put('{')
	array(w, "artifacts", t.Artifacts, w.artifact)
	w.name("contextId")
	w.text(t.ContextID)
	array(w, "history", t.History, w.wholeMessage)
	w.name("id")
	w.text(string(t.ID))
	w.metadata(t.Metadata, "")
	w.name("status")
	w.put('{')
	if t.Status.Message != nil {
		w.name("message")
		w.wholeMessage(t.Status.Message)
	}
	w.name("state")
	w.text(string(t.Status.State))
	if t.Status.State == sdk.TaskStateUnspecified {
		w.fail("a task without a state")
	}
	if at := t.Status.Timestamp; at != nil {
		w.name("timestamp")
		w.put('"')
		w.out = at.AppendFormat(w.out, time.RFC3339Nano)
		w.put('"')
		if year := at.Year(); year < 0 || year > 9999 {
			w.fail("year %d", year)
		}
	}
	w.put('}')
	w.put('}')
}

func (w *canonicalWriter) artifact(a *sdk.Artifact) {
	if a == nil || len(a.Parts) == 0 {
		w.fail("an artifact without parts")
		return
	}
	w.put('{')
	w.name("artifactId")
	w.text(string(a.ID))
	w.member("description", a.Description)
	list(w, "extensions", a.Extensions)
	w.metadata(a.Metadata, "")
	w.member("name", a.Name)
	array(w, "parts", a.Parts, w.part)
	w.put('}')
}

// wholeMessage is a message as a value.
func (w *canonicalWriter) wholeMessage(m *sdk.Message) {
	if m == nil || m.ID == "" || len(m.Parts) == 0 {
		w.fail("a message that lacks something")
		return
	}
	w.message(m, "")
}
