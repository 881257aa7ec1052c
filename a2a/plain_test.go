package a2a

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/a2apb/v1"
)

// readLong is what the SDK's codec makes of a call.
func readLong(t *testing.T, body []byte) Call {
	t.Helper()
	var e struct {
		JSONRPC, Method string
		ID, Params      json.RawMessage
	}
	if err := json.Unmarshal(body, &e); err != nil || e.JSONRPC != "2.0" || e.Method != "SendMessage" {
		t.Fatalf("ReadCall took %q: %v", body, err)
	}
	normal, err := Normalize(e.Params, new(a2apb.SendMessageRequest))
	if err != nil {
		t.Fatalf("ReadCall took %q, which is refused: %v", body, err)
	}
	var req sdk.SendMessageRequest
	if err := json.Unmarshal(normal, &req); err != nil {
		t.Fatalf("ReadCall took %q, which the SDK refuses: %v", body, err)
	}
	return Call{ID: e.ID, Request: &req}
}

func sameCall(t *testing.T, body []byte) bool {
	t.Helper()
	call, ok := ReadCall(body)
	if !ok {
		return false
	}
	var gotID, wantID any
	want := readLong(t, body)
	if err := errors.Join(json.Unmarshal(call.ID, &gotID), json.Unmarshal(want.ID, &wantID)); err != nil || gotID != wantID || !reflect.DeepEqual(call.Request, want.Request) {
		got, _ := json.Marshal(call.Request)
		must, _ := json.Marshal(want.Request)
		t.Errorf("ReadCall of %q:\n%s %s\nwant\n%s %s", body, call.ID, got, want.ID, must)
	}
	return true
}

// rpcCall is a call with these params.
func rpcCall(params string) string {
	return `{"jsonrpc":"2.0","id":"1","method":"SendMessage","params":` + params + `}`
}

const plainMessage = `{"messageId":"m","role":"ROLE_USER","parts":[{"text":"a"}]}`

func TestReadCall(t *testing.T) {
	message := func(members string) string {
		return rpcCall(`{"message":{"messageId":"m","role":"ROLE_USER",` + members + `}}`)
	}
	for _, body := range []string{
		rpcCall(`{"message":` + plainMessage + `}`),
		" \n" + rpcCall(`{"tenant":"t","metadata":{},"configuration":{},"message":`+plainMessage+`}`) + "\n",
		rpcCall(`{"configuration":{"returnImmediately":true,"historyLength":0,"acceptedOutputModes":["a","b"]},"message":` + plainMessage + `}`),
		rpcCall(`{"configuration":{"returnImmediately":false,"historyLength":7,"acceptedOutputModes":[]},"message":` + plainMessage + `}`),
		message(`"contextId":"c","taskId":"t","extensions":["e"],"referenceTaskIds":["r"],"parts":[{"url":"u","filename":"f","mediaType":"m","metadata":{"a":null}}]`),
		message(`"extensions":[],"referenceTaskIds":[],"parts":[{"raw":"AAEC"},{"raw":""},{"text":""}]`),
		message(`"parts":[{"data":{"a":[1,-1,1e3,0.1,true,false,null,"\u00e9\n\"\\\/\ud83e\udd80",{}]}}]`),
		message(`"parts":[{"data":[1]},{"data":"text"},{"data":1},{"data":false}]`),
		message(`"contextId":"a-0","parts":[{"data":{"-0":"-0","n":-0.5,"m":[10,-10]}}]`),
		message(`"metadata":{"":{"deep":[[[[]]]]}},"parts":[{"text":"x = 1\n"}]`),
		strings.Replace(rpcCall(`{"message":`+plainMessage+`}`), `"1"`, `123456789012345`, 1),
		strings.Replace(rpcCall(`{"message":`+plainMessage+`}`), `"1"`, `0`, 1),
	} {
		if !sameCall(t, []byte(body)) {
			t.Errorf("ReadCall(%q) says that it is odd", body)
		}
	}
	plain := rpcCall(`{"message":` + plainMessage + `}`)
	for name, body := range map[string]string{
		"nothing": "", "garbage": "{", "a list": "[" + plain + "]", "two": plain + plain, "text behind": plain + "x",
		"no id": strings.Replace(plain, `"id":"1",`, "", 1), "a null id": strings.Replace(plain, `"1"`, "null", 1),
		"an id that needs escapes": strings.Replace(plain, `"1"`, `"\u0001"`, 1), "a long id": strings.Replace(plain, `"1"`, "1234567890123456", 1),
		"an id below zero": strings.Replace(plain, `"1"`, "-1", 1), "an object as id": strings.Replace(plain, `"1"`, "{}", 1), "half an id": strings.Replace(plain, `"1"`, "1.5", 1),
		"another version": strings.Replace(plain, "2.0", "1.0", 1), "another method": strings.Replace(plain, "SendMessage", "SendStreamingMessage", 1),
		"a member twice": strings.Replace(plain, `"id"`, `"id":"2","id"`, 1), "an unknown member": strings.Replace(plain, `"id"`, `"x":1,"id"`, 1),
		"no params": `{"jsonrpc":"2.0","id":"1","method":"SendMessage"}`, "null params": rpcCall("null"), "no message": rpcCall("{}"), "a null message": rpcCall(`{"message":null}`),
		"snake case": message(`"context_id":"c","parts":[{"text":"a"}]`), "no parts": message(`"parts":[]`), "an empty part": message(`"parts":[{}]`), "two contents": message(`"parts":[{"text":"a","url":"b"}]`),
		"a role by number": strings.Replace(plain, `"ROLE_USER"`, "1", 1), "an unknown role": strings.Replace(plain, "ROLE_USER", "ROLE_KING", 1),
		"base64 for URLs": message(`"parts":[{"raw":"-_8"}]`), "base64 in lines": message(`"parts":[{"raw":"AA\nEC"}]`), "no base64": message(`"parts":[{"raw":"A"}]`), "loose base64": message(`"parts":[{"raw":"AB=="}]`),
		"null data": message(`"parts":[{"data":null}]`), "no URL": message(`"parts":[{"url":""}]`), "a number as text": message(`"parts":[{"text":1}]`),
		"metadata that is no object": message(`"metadata":[],"parts":[{"text":"a"}]`), "half a pair": message(`"parts":[{"text":"\ud800"}]`), "a text of bytes": message("\"parts\":[{\"text\":\"\xff\"}]"),
		"a negative history": rpcCall(`{"configuration":{"historyLength":-1},"message":` + plainMessage + `}`), "a history as text": rpcCall(`{"configuration":{"historyLength":"1"},"message":` + plainMessage + `}`),
		"a receiver": rpcCall(`{"configuration":{"taskPushNotificationConfig":{}},"message":` + plainMessage + `}`), "half a flag": rpcCall(`{"configuration":{"returnImmediately":1},"message":` + plainMessage + `}`),
		"too deep": message(`"metadata":{"a":` + strings.Repeat("[", maxPlainDepth+1) + strings.Repeat("]", maxPlainDepth+1) + `},"parts":[{"text":"a"}]`),
		"too much": message(`"metadata":{"a":[` + strings.Repeat("0,", maxPlainValues) + `0]},"parts":[{"text":"a"}]`),
		"too many": message(`"parts":[` + strings.Repeat(`{"text":"a"},`, maxPlainParts) + `{"text":"a"}]`), "too many names": message(`"extensions":[` + strings.Repeat(`"a",`, maxPlainValues) + `"a"],"parts":[{"text":"a"}]`),
		"zero below zero": message(`"parts":[{"data":{"a":-0}}]`), "zero below zero in a list": message(`"metadata":{"a":[-0.0e5]},"parts":[{"text":"a"}]`), "a number beyond": message(`"parts":[{"data":{"a":1e400}}]`),
	} {
		if call, ok := ReadCall([]byte(body)); ok {
			t.Errorf("%s: ReadCall took it as %s %+v", name, call.ID, call.Request)
		}
	}
}

func FuzzReadCall(f *testing.F) {
	f.Add([]byte(rpcCall(`{"tenant":"t","configuration":{"historyLength":1,"acceptedOutputModes":["a"]},"metadata":{"a":[1e3,null]},"message":` + plainMessage + `}`)))
	f.Add([]byte(rpcCall(`{"message":{"messageId":"","role":"ROLE_AGENT","contextId":"c","taskId":"t","extensions":["e"],"referenceTaskIds":["r"],"metadata":{},"parts":[{"raw":"AAEC"},{"url":"u"},{"data":{"a":-0.0}},{"text":"\u00e9"}]}}`)))
	for _, v := range makeVectors(f) {
		f.Add([]byte(rpcCall(v.Raw)))
	}
	f.Fuzz(func(t *testing.T, body []byte) { sameCall(t, body) })
}

func FuzzLooseOf(f *testing.F) {
	for _, raw := range []string{`{"a":[1,-0,1e3,1e400,null,true,"\u00e9\ud800"]}`, `{"a":1,"a":2}`, "3 4", "", `"\xff"`, strings.Repeat("[", 40) + strings.Repeat("]", 40), " 7 "} {
		f.Add([]byte(raw))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := looseOf(raw)
		var want any
		wantErr := json.Unmarshal(raw, &want)
		if (err == nil) != (wantErr == nil) {
			t.Errorf("looseOf(%q): %v, want %v", raw, err, wantErr)
		}
		if err != nil || wantErr != nil {
			return
		}
		gotText, _ := json.Marshal(got) // tells the zeros apart
		wantText, _ := json.Marshal(want)
		if !reflect.DeepEqual(got, want) || string(gotText) != string(wantText) {
			t.Errorf("looseOf(%q) = %s, want %s", raw, gotText, wantText)
		}
	})
}

const plainTask = `{"id":"t","contextId":"c","status":{"state":"TASK_STATE_COMPLETED","timestamp":"2026-11-28T04:05:06.007Z","message":` + plainMessage + `},` +
	`"artifacts":[{"artifactId":"a","name":"n","description":"d","extensions":["e"],"parts":[{"data":{"a":1e21,"b":[null]},"mediaType":"m"}],"metadata":{"":null}}],"history":[` + plainMessage + `],"metadata":{"a":[]}}`

func rpcReply(task string) string {
	return `{"jsonrpc":"2.0","id":"1","result":{"task":` + task + `}}`
}

// sameReply holds a task that ReadTaskReply reads to what the SDK's codec reads.
func sameReply(t *testing.T, body []byte) bool {
	t.Helper()
	got, ok := ReadTaskReply(body)
	if !ok {
		return false
	}
	var reply struct {
		JSONRPC string          `json:"jsonrpc"`
		Error   json.RawMessage `json:"error"`
		Result  json.RawMessage `json:"result"`
	}
	if err := json.Unmarshal(body, &reply); err != nil || reply.Error != nil || reply.JSONRPC != "2.0" {
		t.Fatalf("ReadTaskReply took %q: %v", body, err)
	}
	var event sdk.StreamResponse
	if err := json.Unmarshal(reply.Result, &event); err != nil {
		t.Fatalf("ReadTaskReply took %q: %v", body, err)
	}
	if !reflect.DeepEqual(got, event.Event) {
		gotText, _ := json.Marshal(got)
		wantText, _ := json.Marshal(event.Event)
		t.Errorf("ReadTaskReply(%q) = %s, want %s", body, gotText, wantText)
	}
	return true
}

func TestReadTaskReply(t *testing.T) {
	for _, body := range []string{
		rpcReply(plainTask), rpcReply(plainTask) + "\n", rpcReply(`{"id":"t","contextId":"c","status":{"state":"TASK_STATE_WORKING"}}`),
		rpcReply(`{"id":"t","contextId":"c","status":{"state":"TASK_STATE_WORKING"},"artifacts":[],"history":[]}`),
	} {
		if !sameReply(t, []byte(body)) {
			t.Errorf("ReadTaskReply(%q) says that it is odd", body)
		}
	}
	for name, body := range map[string]string{
		"nothing": "", "an error": `{"jsonrpc":"2.0","id":"1","error":{"code":-32603,"message":"m"}}`, "a message": `{"jsonrpc":"2.0","id":"1","result":{"message":` + plainMessage + `}}`,
		"both": `{"jsonrpc":"2.0","id":"1","result":{"task":` + plainTask + `,"message":` + plainMessage + `}}`, "a null task": rpcReply("null"), "a null result": `{"jsonrpc":"2.0","id":"1","result":null}`,
		"no result": `{"jsonrpc":"2.0","id":"1"}`, "an unknown member": rpcReply(`{"x":1}`), "another version": strings.Replace(rpcReply(plainTask), "2.0", "1.0", 1),
		"no state": rpcReply(`{"id":"t","status":{"state":""}}`), "no time": rpcReply(`{"id":"t","status":{"state":"s","timestamp":"yesterday"}}`),
		"another zone": rpcReply(`{"id":"t","status":{"state":"s","timestamp":"2026-11-28T04:05:06+01:00"}}`), "zero below zero": rpcReply(`{"metadata":{"a":-0.0}}`),
	} {
		if task, ok := ReadTaskReply([]byte(body)); ok {
			t.Errorf("%s: ReadTaskReply took it as %+v", name, task)
		}
	}
}

func FuzzReadTaskReply(f *testing.F) {
	f.Add([]byte(rpcReply(plainTask)))
	f.Fuzz(func(t *testing.T, body []byte) { sameReply(t, body) })
}
