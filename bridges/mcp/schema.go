package mcp

import (
	"encoding/json"

	"github.com/agenticraft/node/a2a"
)

// object is the JSON Schema of an object with the properties, and no others.
func object(properties string, required ...string) json.RawMessage {
	return marshal(map[string]any{
		"type": "object", "additionalProperties": false, "properties": json.RawMessage(properties), "required": append([]string{}, required...),
	})
}

func ofTask() json.RawMessage {
	return object(`{"task":{"type":"string","description":"the task's id, 32 hex digits"}}`, "task")
}

// runSchema is that of an execution, as agent cards publish it, and detach.
func runSchema() json.RawMessage {
	var schema map[string]any
	if err := json.Unmarshal([]byte(a2a.ExecutionSchema()), &schema); err != nil {
		panic("internal error: the schema of executions is no JSON: " + err.Error())
	}
	delete(schema, "$id") // it is another one now
	properties, _ := schema["properties"].(map[string]any)
	properties["detach"] = map[string]any{"type": "boolean", "description": "true: answer at once; task_status and task_result tell the rest"}
	return marshal(schema)
}

func marshal(v any) json.RawMessage {
	text, err := json.Marshal(v)
	if err != nil {
		panic("internal error: a schema does not marshal: " + err.Error())
	}
	return text
}
