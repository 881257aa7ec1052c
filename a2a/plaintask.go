package a2a

import (
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
)

// ReadTaskReply reads the JSON-RPC answer to a SendMessage that is a task, as nearly
// all servers write one. Of any other, an error included, it says false: the SDK's
// codec reads all, and gives the same task (FuzzReadTaskReply holds it to that).
func ReadTaskReply(body []byte) (*sdk.Task, bool) {
	v, ok := parsePlain(body)
	if !ok {
		return nil, false
	}
	var task *sdk.Task
	var version string
	r := plainReader{}
	r.object(v, func(name string, v canonicalParsed) bool {
		switch name {
		case "jsonrpc":
			version = r.text(v)
			return true
		case "id":
			return r.id(v) != nil
		case "result":
			r.object(v, func(name string, v canonicalParsed) bool {
				task = r.task(v)
				return name == "task"
			})
			return true
		}
		return false
	})
	return task, !r.odd && version == "2.0" && task != nil && task.Status.State != ""
}

func (r *plainReader) task(v canonicalParsed) *sdk.Task {
	t := new(sdk.Task)
	r.object(v, func(name string, v canonicalParsed) bool {
		switch name {
		case "id":
			t.ID = sdk.TaskID(r.text(v))
		case "contextId":
			t.ContextID = r.text(v)
		case "metadata":
			t.Metadata = r.metadata(v)
		case "status":
			t.Status = r.status(v)
		case "artifacts":
			t.Artifacts = many(r, v, r.artifact)
		case "history":
			t.History = many(r, v, r.message)
		default:
			return false
		}
		return true
	})
	return t
}

func (r *plainReader) status(v canonicalParsed) sdk.TaskStatus {
	var s sdk.TaskStatus
	r.object(v, func(name string, v canonicalParsed) bool {
		switch name {
		case "state":
			s.State = sdk.TaskState(r.text(v))
			r.odd = r.odd || s.State == "" || s.State == unspecifiedState
		case "message":
			s.Message = r.message(v)
		case "timestamp":
			at, err := time.Parse(time.RFC3339, r.text(v))
			r.odd = r.odd || err != nil || at.Location() != time.UTC
			s.Timestamp = &at
		default:
			return false
		}
		return true
	})
	return s
}

// unspecifiedState is how the SDK writes that there is none.
const unspecifiedState = "TASK_STATE_UNSPECIFIED"

func (r *plainReader) artifact(v canonicalParsed) *sdk.Artifact {
	a := new(sdk.Artifact)
	r.object(v, func(name string, v canonicalParsed) bool {
		switch name {
		case "artifactId":
			a.ID = sdk.ArtifactID(r.text(v))
		case "name":
			a.Name = r.text(v)
		case "description":
			a.Description = r.text(v)
		case "extensions":
			a.Extensions = texts[string](r, v)
			r.odd = r.odd || len(a.Extensions) == 0
		case "metadata":
			a.Metadata = r.metadata(v)
		case "parts":
			a.Parts = many(r, v, r.part)
		default:
			return false
		}
		return true
	})
	r.odd = r.odd || len(a.Parts) == 0
	return a
}
