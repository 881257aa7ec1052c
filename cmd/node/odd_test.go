package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/a2aproject/a2a-go/v2/a2apb/v1"
	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

	"github.com/agenticraft/node/a2a"
	httpdoor "github.com/agenticraft/node/bridges/http"
)

// oddWait ends a request that hangs.
const oddWait = 20 * time.Second

// oddDoors are the doors of a node as a client without manners uses them.
type oddDoors struct {
	t    *testing.T
	addr string // of the HTTP port
	key  string // an API key
	one  *http.Client
	two  *http.Client // HTTP/2 in the clear
}

func newOddDoors(t *testing.T, c *testCluster) *oddDoors {
	one := &http.Transport{}
	two := &http.Transport{Protocols: new(http.Protocols)}
	two.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(one.CloseIdleConnections)
	t.Cleanup(two.CloseIdleConnections)
	return &oddDoors{t: t, addr: strings.TrimPrefix(c.Nodes[0].HTTP, "http://"), key: c.APIKey, one: &http.Client{Transport: one}, two: &http.Client{Transport: two}}
}

type oddAnswer struct {
	status int
	header http.Header // with the trailer
	body   string
}

func (d *oddDoors) ask(hc *http.Client, method, path, body string, header map[string]string) (oddAnswer, error) {
	ctx, cancel := context.WithTimeout(d.t.Context(), oddWait)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+d.addr, strings.NewReader(body))
	if err != nil {
		return oddAnswer{}, err
	}
	req.URL.Opaque = "//" + d.addr + path // as it is written
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("A2A-Version", a2a.Version)
	req.Header.Set("Authorization", "Bearer "+d.key)
	for name, value := range header {
		if req.Header.Del(name); value != "" {
			req.Header.Set(name, value)
		}
	}
	res, err := hc.Do(req)
	if err != nil {
		return oddAnswer{}, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	maps.Copy(res.Header, res.Trailer)
	return oddAnswer{res.StatusCode, res.Header, string(text)}, err
}

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
		noTask                         = -32001
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
		"no task":                  {oddCall("CancelTask", `{}`), noTask},
		"a path as tenant":         {oddCall("GetTask", `{"id":"x","tenant":"../../x"}`), noTask},
		"no parts":                 {part(""), params},
		"an empty part":            {part("{}"), params},
		"a null part":              {part("null"), params},
		"a part of null":           {part(`{"data":null}`), params},
		"a part of a list":         {part(`{"data":[1]}`), params},
		"a part of two":            {part(`{"text":"x","data":{}}`), params},
		"a part that is no base64": {part(`{"raw":"$$$"}`), params},
		"a file as part":           {part(`{"url":"file:///etc/passwd"}`), params},
		"many parts":               {part(many(`{"text":"x"}`, 20_000)), request},
		"many references":          {with(`"referenceTaskIds":[` + many(`"x"`, 20_000) + `]`), request},
		"many extensions":          {with(`"extensions":[` + many(`"x"`, 20_000) + `]`), request},
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
		"pages of pushes":          {oddCall("ListTaskPushNotificationConfigs", `{"taskId":"x","pageSize":-5,"pageToken":"!"}`), noTask},
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

// goroutines counts those of a node, without what the count itself needs.
func (d *oddDoors) goroutines() int {
	d.t.Helper()
	d.one.CloseIdleConnections()
	d.two.CloseIdleConnections()
	got, err := d.ask(d.one, http.MethodGet, "/metrics", "", nil)
	if err != nil {
		d.t.Fatal(err)
	}
	_, text, _ := strings.Cut(got.body, "\ngo_goroutines ")
	text, _, _ = strings.Cut(text, "\n")
	n, err := strconv.Atoi(text)
	if err != nil {
		d.t.Fatal(err)
	}
	return n
}

// Issue 5, bad input: whatever comes to a door is answered in the door's own form,
// at once, never as a fault of the node, and leaves nothing behind.
func TestOddRequests(t *testing.T) {
	broker := startBroker(t, false)
	c := startCluster(t, 1)
	d := newOddDoors(t, c)
	conn := broker.Connect(nats.UserInfo("client", "client"))
	awaitService(c, conn, 1)
	if rep, r := c.exec(0, "--lang", "starlark", "-c", "result = 1"); r.code != exitOK {
		t.Fatalf("a run before all that: %+v", rep)
	}
	before := d.goroutines()
	t.Run("JSON-RPC", func(t *testing.T) { d.oddRPC(t, conn) })
	t.Run("headers", d.oddHeaders)
	t.Run("HTTP+JSON", d.oddREST)
	t.Run("gRPC", d.oddGRPC)
	t.Run("v1", d.oddV1)
	t.Run("connections", d.oddConnections)

	c.await("the goroutines of all that to end", func() bool { return d.goroutines() <= before+5 })
	for _, bad := range []string{"request failed", "panic", "level=ERROR"} {
		if logs := c.logs(); strings.Contains(logs, bad) {
			t.Errorf("the log says %q:\n%s", bad, logs)
		}
	}
	if rep, r := c.exec(0, "--lang", "starlark", "-c", "result = 1"); r.code != exitOK {
		t.Errorf("a run after all that: %+v", rep)
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

func (d *oddDoors) oddHeaders(t *testing.T) {
	list := oddCall("ListTasks", `{"pageSize":1}`)
	const ok, version, kind, params = 0, -32009, -32005, -32602
	for name, tc := range map[string]struct {
		header map[string]string
		want   int
	}{
		"UTF-8":                {map[string]string{"Content-Type": "application/json; charset=UTF-8"}, ok},
		"UTF-16":               {map[string]string{"Content-Type": "application/json; charset=utf-16"}, kind},
		"a broken type":        {map[string]string{"Content-Type": "application/json; ;;;"}, kind},
		"two types":            {map[string]string{"Content-Type": "application/json, text/plain"}, kind},
		"text":                 {map[string]string{"Content-Type": "text/plain"}, kind},
		"compressed":           {map[string]string{"Content-Encoding": "br"}, kind},
		"version 0":            {map[string]string{"A2A-Version": "0"}, version},
		"version 2.0":          {map[string]string{"A2A-Version": "2.0"}, version},
		"version 1.0.":         {map[string]string{"A2A-Version": "1.0."}, version},
		"version 1.0.99":       {map[string]string{"A2A-Version": "1.0.99"}, ok},
		"two versions":         {map[string]string{"A2A-Version": "1.0, 0.3"}, version},
		"a long version":       {map[string]string{"A2A-Version": strings.Repeat("1", 10_000)}, version},
		"a version of no text": {map[string]string{"A2A-Version": "1.0\xff"}, version},
		"many extensions":      {map[string]string{"A2A-Extensions": strings.Repeat("x,", 10_000)}, ok},
		"an event of -1":       {map[string]string{"Last-Event-ID": "-1"}, params},
		"an event beyond":      {map[string]string{"Last-Event-ID": "99999999999999999999"}, params},
		"a node's header":      {map[string]string{"Agenticraft-Delegation": "e30"}, params},
		"an image wanted":      {map[string]string{"Accept": "image/png"}, ok},
		"a broken trace":       {map[string]string{"Traceparent": "zzz"}, ok},
	} {
		for over, hc := range map[string]*http.Client{"HTTP/1.1": d.one, "HTTP/2": d.two} {
			got, err := d.ask(hc, http.MethodPost, httpdoor.JSONRPCPath, list, tc.header)
			if err != nil || got.status != http.StatusOK {
				t.Errorf("%s over %s: %d, %v", name, over, got.status, err)
				continue
			}
			d.wantRPC(t, name+" over "+over, got.body, tc.want)
		}
	}
	for name, credential := range map[string]string{
		"another scheme": "Basic eDp5", "no credential": "Bearer", "a long one": "Bearer " + strings.Repeat("a.", 20_000), "no text": "Bearer \xff\xfe",
		"an unsigned token": "Bearer eyJhbGciOiJub25lIn0.e30.", "half a token": "Bearer a.b.", "a token of nothing": "Bearer ..",
	} {
		for path, body := range map[string]string{httpdoor.JSONRPCPath: list, httpdoor.RESTPath + "/message:send": "{}", "/v1/runs": "{}"} {
			got, err := d.ask(d.one, http.MethodPost, path, body, map[string]string{"Authorization": credential})
			if err != nil || got.status != http.StatusUnauthorized || !json.Valid([]byte(got.body)) {
				t.Errorf("%s at %s: %d %.200s, %v", name, path, got.status, got.body, err)
			}
		}
	}
}

func (d *oddDoors) oddREST(t *testing.T) {
	id := "/tasks/" + strings.Repeat("0", 32)
	for _, tc := range []struct {
		line   string
		status int
	}{
		{"GET /tasks?pageSize=0", 200},
		{"GET /tasks?pageSize=1000000000", 400},
		{"GET /tasks?pageSize=-1", 400},
		{"GET /tasks?pageSize=abc", 400},
		{"GET /tasks?pageSize=99999999999999999999", 400},
		{"GET /tasks?pageToken=!!!", 400},
		{"GET /tasks?status=BOGUS", 400},
		{"GET /tasks?status=TASK_STATE_UNSPECIFIED", 200},
		{"GET /tasks?historyLength=-1", 400},
		{"GET /tasks?statusTimestampAfter=x", 400},
		{"GET /tasks?statusTimestampAfter=99999-01-01T00:00:00Z", 400},
		{"GET /tasks?includeArtifacts=perhaps", 400},
		{"GET /tasks?contextId=%zz", 400},
		{"GET /tasks?a;b", 400},
		{"GET /tasks?contextId=%00%ff", 200},
		{"GET /..%2ftasks", 404},
		{"GET /%2e%2e/tasks", 404},
		{"GET /%2e%2e%2f%2e%2e/tasks", 404},
		{"GET /a%2fb/tasks", 404},
		{"GET /%00/tasks", 404},
		{"GET /%ff/tasks", 404},
		{"GET /ä/tasks", 200},
		{"GET /%E2%98%83/tasks", 200},
		{"GET /" + strings.Repeat("x", 200) + "/tasks", 404},
		{"GET /a/b/tasks", 404},
		{"GET /tasks/", 404},
		{"GET /tasks/%2e%2e", 404},
		{"GET /tasks/..%2f..%2fx", 404},
		{"GET /tasks/%00", 404},
		{"GET /tasks/" + strings.Repeat("x", 10_000), 404},
		{"GET " + id, 404},
		{"GET " + id + ":subscribe", 404},
		{"GET " + id + ":cancel", 405},
		{"POST " + id + ":cancel {}", 404},
		{"POST " + id + ":cancel \x00", 400},
		{"POST " + id + ":cancel [", 400},
		{"POST " + id + `:cancel {"id":1,"id":2}`, 400},
		{"POST " + id + ":subscribe \x00", 400},
		{"POST " + id + ":explode {}", 404},
		{"GET " + id + "/pushNotificationConfigs", 404},
		{"POST " + id + "/pushNotificationConfigs [", 400},
		{"GET " + id + "/pushNotificationConfigs/%2e%2e", 404},
		{"GET " + id + "?historyLength=99999999999999999999", 400},
		{"PUT /tasks {}", 405},
		{"TRACE /tasks", 405},
		{"BREW /tasks", 405},
		{"POST /message:send", 400},
		{"POST /message:send \x00", 400},
		{`POST /message:send {"message":{},"message":{}}`, 400},
		{"POST /message:stream [", 400},
		{"POST /message:send " + strings.Repeat("[", 20_000), 400},
		{"POST /message:send " + `{"message":{"messageId":"m","role":"ROLE_USER","parts":[` + strings.Repeat(`{"text":"x"},`, 999) + `{"text":"x"}]}}`, 413},
	} {
		method, rest, _ := strings.Cut(tc.line, " ")
		path, body, _ := strings.Cut(rest, " ")
		for over, hc := range map[string]*http.Client{"HTTP/1.1": d.one, "HTTP/2": d.two} {
			got, err := d.ask(hc, method, httpdoor.RESTPath+path, body, nil)
			switch {
			case err != nil || got.status != tc.status || !json.Valid([]byte(got.body)):
				t.Errorf("%.80q over %s: %d %.200s, %v, want %d", tc.line, over, got.status, got.body, err, tc.status)
			case got.status >= 400 && !strings.Contains(got.body, `"code":"`):
				t.Errorf("%.80q over %s: no ErrorInfo in %s", tc.line, over, got.body)
			}
		}
	}
}

// oddGRPC sends what no gRPC library would.
func (d *oddDoors) oddGRPC(t *testing.T) {
	frame := func(text string) string {
		return string(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(text)))) + text
	}
	packed := func(m proto.Message) string {
		raw, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return frame(string(raw))
	}
	const unimplemented, invalid, notFound, exhausted, precondition, unauthenticated = "12", "3", "5", "8", "9", "16"
	for name, tc := range map[string]struct {
		method, body string
		header       map[string]string
		want         string // grpc-status; "": any but those that are faults of the node
	}{
		"no such method":      {"Explode", frame(""), nil, unimplemented},
		"garbage":             {"GetTask", frame("\xff\xff\xff\xff"), nil, invalid},
		"no UTF-8":            {"GetTask", frame("\x12\x02\xff\xfe"), nil, invalid},
		"a length beyond":     {"GetTask", frame("\x12\x7fabc"), nil, invalid},
		"garbage streamed":    {"SendStreamingMessage", frame("\xff\xff\xff\xff"), nil, invalid},
		"a huge length":       {"GetTask", "\x00\xff\xff\xff\xffx", nil, exhausted},
		"half a frame":        {"GetTask", "\x00\x00\x00\x00\x09abc", nil, ""},
		"no frame":            {"GetTask", "", nil, ""},
		"two frames":          {"GetTask", frame("") + frame(""), nil, ""},
		"said to be packed":   {"GetTask", "\x01" + frame("")[1:], nil, ""},
		"packed unknown":      {"GetTask", "\x01" + frame("")[1:], map[string]string{"Grpc-Encoding": "zip"}, unimplemented},
		"another message":     {"GetTask", packed(&a2apb.ListTasksRequest{PageSize: proto.Int32(7)}), nil, ""},
		"no message":          {"SendMessage", packed(&a2apb.SendMessageRequest{}), nil, invalid},
		"no content":          {"SendMessage", packed(&a2apb.SendMessageRequest{Message: &a2apb.Message{MessageId: "m", Role: a2apb.Role_ROLE_USER, Parts: []*a2apb.Part{{}}}}), nil, invalid},
		"no role":             {"SendMessage", packed(&a2apb.SendMessageRequest{Message: &a2apb.Message{MessageId: "m", Parts: []*a2apb.Part{{Content: &a2apb.Part_Text{Text: "x"}}}}}), nil, invalid},
		"a role 99":           {"SendMessage", packed(&a2apb.SendMessageRequest{Message: &a2apb.Message{MessageId: "m", Role: 99, Parts: []*a2apb.Part{{Content: &a2apb.Part_Text{Text: "x"}}}}}), nil, invalid},
		"many parts":          {"SendMessage", packed(&a2apb.SendMessageRequest{Message: &a2apb.Message{MessageId: "m", Role: a2apb.Role_ROLE_USER, Parts: make([]*a2apb.Part, 20_000)}}), nil, exhausted},
		"many parts streamed": {"SendStreamingMessage", packed(&a2apb.SendMessageRequest{Message: &a2apb.Message{MessageId: "m", Role: a2apb.Role_ROLE_USER, Parts: make([]*a2apb.Part, 20_000)}}), nil, exhausted},
		"history -1":          {"GetTask", packed(&a2apb.GetTaskRequest{Id: "x", HistoryLength: proto.Int32(-1)}), nil, invalid},
		"page -1":             {"ListTasks", packed(&a2apb.ListTasksRequest{PageSize: proto.Int32(-1)}), nil, invalid},
		"page 2^31-1":         {"ListTasks", packed(&a2apb.ListTasksRequest{PageSize: proto.Int32(1<<31 - 1)}), nil, invalid},
		"state 99":            {"ListTasks", packed(&a2apb.ListTasksRequest{Status: 99}), nil, invalid},
		"no page token":       {"ListTasks", packed(&a2apb.ListTasksRequest{PageToken: "!"}), nil, invalid},
		"a path as task":      {"GetTask", packed(&a2apb.GetTaskRequest{Id: "../../x"}), nil, notFound},
		"no version":          {"GetTask", frame(""), map[string]string{"A2A-Version": ""}, precondition},
		"a broken credential": {"GetTask", frame(""), map[string]string{"Authorization": "Bearer a.b."}, unauthenticated},
		"no time":             {"GetTask", frame(""), map[string]string{"Grpc-Timeout": "x"}, ""},
		"another type":        {"GetTask", "{}", map[string]string{"Content-Type": "application/grpc+json"}, ""},
		"the web's type":      {"GetTask", frame(""), map[string]string{"Content-Type": "application/grpc-web"}, ""},
	} {
		header := map[string]string{"Content-Type": "application/grpc", "Te": "trailers"}
		maps.Copy(header, tc.header)
		got, err := d.ask(d.two, http.MethodPost, "/lf.a2a.v1.A2AService/"+tc.method, tc.body, header)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		status := got.header.Get("Grpc-Status")
		if tc.want != "" && status != tc.want || tc.want == "" && (status == "2" || status == "15") || got.status >= 500 {
			t.Errorf("%s: HTTP %d, gRPC status %s (%s), want %s", name, got.status, status, got.header.Get("Grpc-Message"), tc.want)
		}
	}
	// Over HTTP/1.1 there is no gRPC, and a document that says so.
	if got, err := d.ask(d.one, http.MethodPost, "/lf.a2a.v1.A2AService/GetTask", frame(""), map[string]string{"Content-Type": "application/grpc"}); err != nil || got.status != http.StatusNotFound {
		t.Errorf("gRPC over HTTP/1.1: %d %.100s, %v", got.status, got.body, err)
	}
}

// oddV1 asks every route of /v1 for what is not there, with bodies that are none.
func (d *oddDoors) oddV1(t *testing.T) {
	id := strings.Repeat("0", 32)
	bodies := []string{"", "null", "[]", "\x00", strings.Repeat("[", 50_000), `{"name":"\u0000"}`, `{"id":"\u0000","principal":"\u0000","role":"\u0000","tenant":"\u0000"}`, `{"language":"starlark","code":"","limits":{"memory_bytes":1e400}}`}
	for _, line := range []string{
		"GET /v1/tasks?limit=-1", "GET /v1/tasks?limit=x", "GET /v1/tasks?cursor=!!!", "GET /v1/tasks/..%2f..%2fx", "GET /v1/tasks/%00", "GET /v1/tasks/" + id, "GET /v1/tasks/" + id + "/receipt", "POST /v1/tasks/" + id + "/cancel",
		"GET /v1/audit/entries?limit=-1", "GET /v1/audit/entries?since=x", "GET /v1/audit/entries?cursor=!", "GET /v1/audit/entries/-1", "GET /v1/audit/entries/18446744073709551615", "GET /v1/audit/entries?actor=%ff", "GET /v1/audit/entries?task=%00",
		"GET /v1/audit/proof/x", "GET /v1/audit/proof/18446744073709551615", "GET /v1/audit/tasks/%00", "GET /v1/audit/state?at=999999999", "GET /v1/audit/export?format=x", "GET /v1/audit/follow?from=x",
		"GET /v1/evidence/%00", "GET /v1/evidence/..%2f..%2fnode.key", "DELETE /v1/evidence/..%2fx", "GET /v1/evidence/" + id + "/part?name=../../x",
		"POST /v1/keys/..%2f/rotate", "DELETE /v1/keys/%00", "DELETE /v1/agents/%00", "DELETE /v1/nodes/%00", "PATCH /v1/tenants/%00", "POST /v1/roles/grant", "POST /v1/roles/revoke", "POST /v1/tenants", "POST /v1/keys", "POST /v1/agents",
		"POST /v1/changes", "POST /v1/policy", "POST /v1/policy/replay", "POST /v1/runs", "GET /log/tile/0/x", "GET /log/tile/99/000", "GET /log/..%2f..%2fnode.key", "GET /v1/nothing", "PUT /v1/status", "GET /..%2f..%2fetc/passwd", "GET /%2e%2e/%2e%2e/node.key",
	} {
		method, path, _ := strings.Cut(line, " ")
		for _, body := range bodies {
			if method == http.MethodGet && body != "" {
				continue
			}
			got, err := d.ask(d.one, method, path, body, nil)
			if err != nil || got.status < 400 || got.status >= 500 || strings.Contains(got.body, "PRIVATE") {
				t.Errorf("%s with %.40q: %d %.200s, %v", line, body, got.status, got.body, err)
			}
		}
	}
}

// oddConnections speaks to the port as no HTTP library would: each is answered, or
// hung up on, while it waits.
func (d *oddDoors) oddConnections(t *testing.T) {
	list := oddCall("ListTasks", `{"pageSize":1}`)
	head := "Host: x\r\nA2A-Version: 1.0\r\nContent-Type: application/json\r\nAuthorization: Bearer " + d.key + "\r\n"
	post := "POST " + httpdoor.JSONRPCPath + " HTTP/1.1\r\n" + head
	whole := post + "Content-Length: " + strconv.Itoa(len(list)) + "\r\n\r\n" + list
	for name, tc := range map[string]struct {
		say  string
		want string // begins the last line of status; "": hung up on without a word
	}{
		"not HTTP":                {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "HTTP/1.1 400"},
		"NUL bytes":               {strings.Repeat("\x00", 5000) + "\r\n\r\n", "HTTP/1.1 400"},
		"no host":                 {"GET /healthz HTTP/1.1\r\n\r\n", "HTTP/1.1 400"},
		"two hosts":               {"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "HTTP/1.1 400"},
		"HTTP/1.0":                {"GET /healthz HTTP/1.0\r\n\r\n", "HTTP/1.0 200"},
		"HTTP/3.0":                {"GET /healthz HTTP/3.0\r\nHost: x\r\n\r\n", "HTTP/1.1 505"},
		"a URL":                   {"GET http://elsewhere/healthz HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200"},
		"a tunnel":                {"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\n\r\n", "HTTP/1.1 404"},
		"a star":                  {"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200"},
		"a long URL":              {"GET /" + strings.Repeat("x", 200<<10) + " HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 431"},
		"many headers":            {"GET /healthz HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X: y\r\n", 50_000) + "\r\n", "HTTP/1.1 431"},
		"a header without end":    {"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("y", 200<<10) + "\r\n\r\n", "HTTP/1.1 431"},
		"two lengths":             {post + "Content-Length: 5\r\nContent-Length: 6\r\n\r\n", "HTTP/1.1 400"},
		"a negative length":       {post + "Content-Length: -5\r\n\r\n", "HTTP/1.1 400"},
		"a length of 2^63":        {post + "Content-Length: 9223372036854775808\r\n\r\n", "HTTP/1.1 400"},
		"a length of 8 EiB":       {post + "Content-Length: 9223372036854775807\r\n\r\n", "HTTP/1.1 200"}, // too_large, in JSON-RPC's form
		"broken chunks":           {post + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", "HTTP/1.1 200"},
		"chunks of chunks":        {post + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 501"},
		"a length and chunks":     {post + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 200"},
		"what is not expected":    {post + "Expect: the-unexpected\r\nContent-Length: 2\r\n\r\n{}", "HTTP/1.1 417"},
		"an upgrade to HTTP/2":    {"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n", "HTTP/1.1 200"},
		"an upgrade to WebSocket": {"GET " + httpdoor.JSONRPCPath + " HTTP/1.1\r\n" + head + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", "HTTP/1.1 405"},
		"a folded header":         {"GET /healthz HTTP/1.1\r\nHost: x\r\n X: y\r\n\r\n", "HTTP/1.1 400"},
		"a space before a colon":  {"GET /healthz HTTP/1.1\r\nHost : x\r\n\r\n", "HTTP/1.1 400"},
		"HTTP/2 with bad frames":  {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + strings.Repeat("\xff", 100), ""},
		"HTTP/2 half a preface":   {"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", ""},
	} {
		answers := d.converse(t, name, tc.say)
		if tc.want == "" && strings.Contains(answers, " 200 ") || !strings.HasPrefix(answers, tc.want) {
			t.Errorf("%s: %.200q, want %s", name, answers, tc.want)
		}
		if strings.Contains(answers, "HTTP/1.1 500") || strings.Contains(answers, "101 Switching") {
			t.Errorf("%s: %.200q", name, answers)
		}
	}
	// Fifty requests in one breath get fifty answers, in their order.
	var all strings.Builder
	for i := range 50 {
		body := strings.Replace(list, `"id":7`, `"id":`+strconv.Itoa(i), 1)
		fmt.Fprintf(&all, "%sContent-Length: %d\r\n\r\n%s", post, len(body), body)
	}
	rest := d.converse(t, "a pipeline", all.String()+"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	for i := range 50 {
		_, after, found := strings.Cut(rest, `{"jsonrpc":"2.0","id":`+strconv.Itoa(i)+`,"result"`)
		if !found {
			t.Fatalf("a pipeline: no answer %d in %.300q", i, rest)
		}
		rest = after
	}
	// Who is slow holds up nobody, and who hangs up in the middle leaves nothing.
	for i := range 100 {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", d.addr)
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.WriteString(conn, whole[:len(whole)*i/100])
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	if got, err := d.ask(d.one, http.MethodPost, httpdoor.JSONRPCPath, list, nil); err != nil || got.status != http.StatusOK {
		t.Errorf("beside a hundred slow clients: %d, %v", got.status, err)
	}
}

// converse says something to the port, no more, and gives what comes until the node
// hangs up.
func (d *oddDoors) converse(t *testing.T, name, say string) string {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", d.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(oddWait)); err != nil {
		t.Fatal(err)
	}
	go func() { // the node may answer, and hang up, before it has read all
		_, _ = io.WriteString(conn, say)
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	var out bytes.Buffer
	if _, err := io.Copy(&out, bufio.NewReader(conn)); err != nil && out.Len() == 0 && !strings.Contains(err.Error(), "reset") {
		t.Errorf("%s: %v", name, err)
	}
	return out.String()
}
