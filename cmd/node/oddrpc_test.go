package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/agenticraft/node/a2a"
	httpdoor "github.com/agenticraft/node/bridges/http"
)

// oddCall is a JSON-RPC request with the id 7.
func oddCall(method, params string) string {
	return `{"jsonrpc":"2.0","id":7,"method":"` + method + `","params":` + params + `}`
}

// oddMessage sends a message.
func oddMessage(message string) string {
	return oddCall("SendMessage", `{"message":`+message+`}`)
}

// oddBodies are JSON-RPC requests that no good client sends, and the number of the
// error that each gets; 0: it is answered.
func oddBodies() map[string]struct {
	body string
	want int
} {
	const (
		parse, request, method, params = -32700, -32600, -32601, -32602
		noTask, kind                   = -32001, -32005
	)
	type odd = struct {
		body string
		want int
	}
	get := oddCall("GetTask", `{"id":"x"}`)
	part := func(part string) string {
		return oddMessage(`{"messageId":"m","role":"ROLE_USER","parts":[` + part + `]}`)
	}
	with := func(members string) string {
		return oddMessage(`{"messageId":"m","role":"ROLE_USER","parts":[{"text":"x"}],` + members + `}`)
	}
	id := func(id string) string { return `{"jsonrpc":"2.0","id":` + id + `,"method":"ListTasks"}` }
	many := func(one string, n int) string { return strings.Repeat(one+",", n-1) + one }
	big := strings.Repeat("x", 1<<20)
	return map[string]odd{
		"nothing":                  {"", parse},
		"a batch":                  {"[" + get + "]", request},
		"an empty batch":           {"[]", request},
		"a large batch":            {"[" + many(get, 10_000) + "]", request},
		"null":                     {"null", request},
		"a text":                   {`"x"`, request},
		"a number":                 {"1", request},
		"text behind it":           {get + " x", parse},
		"NUL behind it":            {get + "\x00", parse},
		"another behind it":        {get + get, parse},
		"a byte order mark":        {"\xef\xbb\xbf" + get, parse},
		"UTF-16":                   {"\xff\xfe{\x00}\x00", parse},
		"no UTF-8 in the id":       {id("\"\xff\""), parse},
		"no UTF-8 in the method":   {"{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"\xff\"}", parse},
		"no UTF-8 in a param":      {oddCall("GetTask", "{\"id\":\"\xff\"}"), parse},
		"half of a character":      {oddCall("GetTask", `{"id":"\ud800"}`), params},
		"brackets":                 {strings.Repeat("[", 1_000_000), parse},
		"deep params":              {oddCall("GetTask", strings.Repeat(`{"a":`, 9000)+"1"+strings.Repeat("}", 9000)), params},
		"too deep params":          {oddCall("GetTask", strings.Repeat(`{"a":`, 50_000)+"1"+strings.Repeat("}", 50_000)), parse},
		"two methods":              {`{"jsonrpc":"2.0","id":7,"method":"GetTask","method":"ListTasks","params":{}}`, request},
		"two ids":                  {`{"jsonrpc":"2.0","id":7,"id":8,"method":"ListTasks"}`, request},
		"members in capitals":      {`{"JSONRPC":"2.0","ID":7,"METHOD":"ListTasks"}`, request},
		"another member":           {`{"jsonrpc":"2.0","id":7,"method":"ListTasks","x":{"y":[]}}`, 0},
		"a version as number":      {`{"jsonrpc":2.0,"id":7,"method":"ListTasks"}`, request},
		"a method as number":       {`{"jsonrpc":"2.0","id":7,"method":1}`, request},
		"a huge method":            {`{"jsonrpc":"2.0","id":7,"method":"` + big + `"}`, method},
		"params as text":           {oddCall("ListTasks", `"x"`), params},
		"params null":              {oddCall("GetTask", `null`), params},
		"a boolean id":             {id("true"), request},
		"a list as id":             {id("[1]"), request},
		"history -1":               {oddCall("GetTask", `{"id":"x","historyLength":-1}`), params},
		"history 10^10":            {oddCall("GetTask", `{"id":"x","historyLength":10000000000}`), params},
		"history 1.5":              {oddCall("GetTask", `{"id":"x","historyLength":1.5}`), params},
		"history of a message":     {oddCall("SendMessage", `{"message":{"messageId":"m","role":"ROLE_USER","parts":[{"text":"x"}]},"configuration":{"historyLength":-1}}`), params},
		"history of a list":        {oddCall("ListTasks", `{"historyLength":-1}`), params},
		"page of 0":                {oddCall("ListTasks", `{"pageSize":0}`), 0},
		"page of 10^9":             {oddCall("ListTasks", `{"pageSize":1000000000}`), params},
		"page of -1":               {oddCall("ListTasks", `{"pageSize":-1}`), params},
		"page of 10^100":           {oddCall("ListTasks", `{"pageSize":1e100}`), params},
		"no page token":            {oddCall("ListTasks", `{"pageToken":"!!!"}`), params},
		"a short page token":       {oddCall("ListTasks", `{"pageToken":"AAAA"}`), params},
		"a made-up page token":     {oddCall("ListTasks", `{"pageToken":"`+strings.Repeat("_", 400)+`"}`), 0},
		"a huge page token":        {oddCall("ListTasks", `{"pageToken":"`+big+`"}`), params},
		"no state":                 {oddCall("ListTasks", `{"status":"BOGUS"}`), params},
		"a state by number":        {oddCall("ListTasks", `{"status":99}`), params},
		"a state in small":         {oddCall("ListTasks", `{"status":"task_state_completed"}`), params},
		"any state":                {oddCall("ListTasks", `{"status":"TASK_STATE_UNSPECIFIED"}`), 0},
		"no time":                  {oddCall("ListTasks", `{"statusTimestampAfter":"yesterday"}`), params},
		"the year 1":               {oddCall("ListTasks", `{"statusTimestampAfter":"0001-01-01T00:00:00Z"}`), 0},
		"the year 9999":            {oddCall("ListTasks", `{"statusTimestampAfter":"9999-12-31T23:59:59Z"}`), 0},
		"a context with NUL":       {oddCall("ListTasks", `{"contextId":"a\u0000b"}`), 0},
		"a huge context":           {oddCall("ListTasks", `{"contextId":"`+big+`"}`), 0},
		"a path as task":           {oddCall("GetTask", `{"id":"../../etc/passwd"}`), noTask},
		"NUL as task":              {oddCall("CancelTask", `{"id":"\u0000"}`), noTask},
		"a huge task":              {oddCall("SubscribeToTask", `{"id":"`+big+`"}`), noTask},
		"no task":                  {oddCall("CancelTask", `{}`), params},
		"no task to push of":       {oddCall("ListTaskPushNotificationConfigs", `{}`), params},
		"a path as tenant":         {oddCall("GetTask", `{"id":"x","tenant":"../../x"}`), noTask},
		"no parts":                 {part(""), params},
		"an empty part":            {part("{}"), params},
		"a null part":              {part("null"), params},
		"a part of null":           {part(`{"data":null}`), params},
		"a part of a list":         {part(`{"data":[1]}`), params},
		"a part of two":            {part(`{"text":"x","data":{}}`), params},
		"a part that is no base64": {part(`{"raw":"$$$"}`), params},
		"a file as part":           {part(`{"url":"file:///etc/passwd"}`), kind},
		"an image":                 {part(`{"raw":"iVBORw==","mediaType":"image/png"}`), kind},
		"an image behind a text":   {part(`{"text":"x"},{"raw":"iVBORw==","mediaType":"image/png"}`), kind},
		"HTML":                     {part(`{"text":"x","mediaType":"text/html"}`), kind},
		"many parts":               {part(many(`{"text":"x"}`, 20_000)), request},
		"many references":          {with(`"referenceTaskIds":[` + many(`"x"`, 20_000) + `]`), request},
		"many extensions":          {with(`"extensions":[` + many(`"x"`, 20_000) + `]`), request},
		"much metadata":            {with(`"metadata":{"a":"` + big[:100_000] + `"}`), 0},
		"wide metadata":            {with(`"metadata":{"a":[` + many("0", 200_000) + `]}`), request},
		"wide data":                {part(`{"data":[` + many("{}", 200_000) + `]}`), request},
		"deep metadata":            {with(`"metadata":` + strings.Repeat(`{"a":`, 200) + "1" + strings.Repeat("}", 200)), params},
		"metadata twice":           {with(`"metadata":{"a":1,"a":2}`), params},
		"a number out of range":    {with(`"metadata":{"a":1e400}`), params},
		"no signature":             {with(`"extensions":["` + a2a.SignedMessageURI + `"],"metadata":{"` + a2a.SignedMessageURI + `":7}`), params},
		"signatures no list":       {with(`"extensions":["` + a2a.SignedMessageURI + `"],"metadata":{"` + a2a.SignedMessageURI + `":{"claims":[],"signatures":{}}}`), params},
		"no role":                  {oddMessage(`{"messageId":"m","parts":[{"text":"x"}]}`), params},
		"a role by number":         {oddMessage(`{"messageId":"m","role":7,"parts":[{"text":"x"}]}`), params},
		"a huge message id":        {oddMessage(`{"messageId":"` + big + `","role":"ROLE_USER","parts":[{"text":"x"}]}`), params},
		"a long context":           {with(`"contextId":"` + big + `"`), params},
		"a path to go on with":     {with(`"taskId":"../x"`), noTask},
		"no URL to push to":        {oddCall("SendMessage", `{"message":{"messageId":"m","role":"ROLE_USER","parts":[{"text":"x"}]},"configuration":{"taskPushNotificationConfig":{"url":"::::"}}}`), params},
		"a file to push to":        {oddCall("CreateTaskPushNotificationConfig", `{"taskId":"x","url":"file:///etc/passwd"}`), params},
		"a push id with NUL":       {oddCall("CreateTaskPushNotificationConfig", `{"taskId":"x","id":"../\u0000","url":"https://x.invalid"}`), params},
		"nothing to push":          {oddCall("CreateTaskPushNotificationConfig", `{}`), params},
		"pages of pushes":          {oddCall("ListTaskPushNotificationConfigs", `{"taskId":"x","pageSize":-5,"pageToken":"!"}`), params},
		"a language as path":       {part(`{"data":{"language":"../x","code":""}}`), params},
		"memory of -1":             {part(`{"data":{"language":"starlark","code":"","limits":{"memory_bytes":-1}}}`), params},
		"memory of 1.5":            {part(`{"data":{"language":"starlark","code":"","limits":{"memory_bytes":1.5}}}`), params},
		"a file outside":           {part(`{"data":{"language":"starlark","code":"","files":[{"path":"../../x","content":""}]}}`), params},
	}
}

// wantRPC holds an answer to its form: an id, an error of this number (0: none) with
// an ErrorInfo that gives our code.
func (d *oddDoors) wantRPC(t *testing.T, name, text string, want int) {
	t.Helper()
	var got struct {
		JSONRPC string
		ID      json.RawMessage
		Result  json.RawMessage
		Error   *struct {
			Code int
			Data []struct{ Metadata map[string]string }
		}
	}
	if err := json.Unmarshal([]byte(text), &got); err != nil || got.JSONRPC != "2.0" {
		t.Errorf("%s: answered %.300s (%v)", name, text, err)
		return
	}
	switch {
	case want == 0 && (got.Error != nil || got.Result == nil):
		t.Errorf("%s: refused: %.300s", name, text)
	case want != 0 && (got.Error == nil || got.Error.Code != want || len(got.Error.Data) != 1 || got.Error.Data[0].Metadata["code"] == ""):
		t.Errorf("%s: answered %.300s, want error %d", name, text, want)
	}
}

func (d *oddDoors) oddRPC(t *testing.T, conn *nats.Conn) {
	overNATS := func(body string) (oddAnswer, error) {
		m := &nats.Msg{Subject: "agenticraft.a2a", Header: nats.Header{"Authorization": {"Bearer " + d.key}, "A2A-Version": {a2a.Version}}, Data: []byte(body)}
		res, err := conn.RequestMsg(m, oddWait)
		if err != nil {
			return oddAnswer{}, err
		}
		return oddAnswer{status: http.StatusOK, body: string(res.Data)}, nil
	}
	// Who wants no answer gets none.
	for _, act := range []string{"a2a", "run", "status", "cancel", "receipt", "card"} {
		for _, m := range []*nats.Msg{{}, {Data: []byte(oddCall("ListTasks", "{}"))}, {Header: nats.Header{"A2a-Version": {"\xff", ""}, "Authorization": {strings.Repeat("x", 100_000)}}, Data: []byte("\x00")}} {
			if m.Subject = "agenticraft." + act; conn.PublishMsg(m) != nil {
				t.Errorf("%.40s cannot be sent", m.Subject)
			}
		}
	}
	for name, odd := range oddBodies() {
		for over, ask := range map[string]func(string) (oddAnswer, error){
			"HTTP/1.1": func(body string) (oddAnswer, error) {
				return d.ask(d.one, http.MethodPost, httpdoor.JSONRPCPath, body, nil)
			},
			"HTTP/2": func(body string) (oddAnswer, error) {
				return d.ask(d.two, http.MethodPost, httpdoor.JSONRPCPath, body, nil)
			},
			"NATS": overNATS,
		} {
			if over == "NATS" && len(odd.body) > int(conn.MaxPayload())-1024 {
				continue // a broker takes no such message
			}
			got, err := ask(odd.body)
			if err != nil || got.status != http.StatusOK {
				t.Errorf("%s over %s: %d, %v", name, over, got.status, err)
				continue
			}
			d.wantRPC(t, name+" over "+over, got.body, odd.want)
		}
	}
	for _, id := range []string{`1.0`, `1.5`, `-7`, `1e400`, `9007199254740993`, `123456789012345678901234567890`, `null`, `"é☃"`, `"` + strings.Repeat("x", 1<<20) + `"`} {
		for _, method := range []string{"ListTasks", "GetTask", "Nothing"} {
			got, err := d.ask(d.one, http.MethodPost, httpdoor.JSONRPCPath, `{"id":`+id+`,"jsonrpc":"2.0","method":"`+method+`","params":{"id":"x"}}`, nil)
			if err != nil || !strings.HasPrefix(got.body, `{"jsonrpc":"2.0","id":`+id+`,`) {
				t.Errorf("%s with id %.40s: answered %.100s, %v", method, id, got.body, err)
			}
		}
	}
}
