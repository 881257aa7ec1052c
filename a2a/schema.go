package a2a

import _ "embed" // for the schema

//go:embed execution.schema.json
var executionSchema string

// ExecutionSchema is the JSON Schema (2020-12) of [Execution], as agent cards
// publish it.
func ExecutionSchema() string { return executionSchema }
