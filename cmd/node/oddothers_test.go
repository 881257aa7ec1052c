package main

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/agenticraft/node/a2a"
	httpdoor "github.com/agenticraft/node/bridges/http"
)

// oddOthers asks, as somebody else, for tasks that are not his: whatever is asked
// about them and on whatever door, the answer is the one about a task that there is
// not, to the letter (A2A 13.1).
func (d *oddDoors) oddOthers(t *testing.T, c *testCluster, conn *nats.Conn) {
	begun := func(path, body string) string {
		got, err := d.ask(d.one, http.MethodPost, path, body, nil)
		var answer struct {
			Task   string
			Result struct{ Task struct{ ID string } }
		}
		if err != nil || json.Unmarshal([]byte(got.body), &answer) != nil || answer.Task+answer.Result.Task.ID == "" {
			t.Fatalf("%s: %d %.300s, %v", body, got.status, got.body, err)
		}
		return answer.Task + answer.Result.Task.ID
	}
	tasks := map[string]string{
		"ended":     begun("/v1/runs", `{"language":"starlark","code":"result = {}"}`),
		"at work":   begun(httpdoor.JSONRPCPath, oddCall("SendMessage", `{"message":{"messageId":"m","role":"ROLE_USER","parts":[{"data":{"language":"starlark","code":"def f():\n for i in range(1000000000000): pass\nf()","limits":{"timeout_ms":600000}}}]},"configuration":{"returnImmediately":true}}`)),
		"waiting":   begun(httpdoor.JSONRPCPath, oddMessage(`{"messageId":"m","role":"ROLE_USER","parts":[{"text":"hello"}]}`)),
		"no task's": strings.Repeat("0", 32),
	}
	defer func() {
		if got, err := d.ask(d.one, http.MethodPost, httpdoor.JSONRPCPath, oddCall("CancelTask", `{"id":"`+tasks["at work"]+`"}`), nil); err != nil || strings.Contains(got.body, `"error":{"code":-`) {
			t.Errorf("the task at work is not cancelled: %.300s, %v", got.body, err)
		}
	}()
	var made struct{ Key string }
	if r := c.run("key", "create", "--name", "stranger", "--role", "runner", "--json"); r.code != exitOK || json.Unmarshal([]byte(r.stdout), &made) != nil || made.Key == "" {
		t.Fatalf("no key for a stranger: %+v", r)
	}
	stranger := map[string]string{"Authorization": "Bearer " + made.Key}
	send := func(configuration string) string {
		return `{"message":{"messageId":"m","role":"ROLE_USER","taskId":"ID","parts":[{"text":"x"}]}` + configuration + `}`
	}
	asks := []string{
		"POST " + httpdoor.JSONRPCPath + " " + oddCall("GetTask", `{"id":"ID"}`),
		"POST " + httpdoor.JSONRPCPath + " " + oddCall("CancelTask", `{"id":"ID"}`),
		"POST " + httpdoor.JSONRPCPath + " " + oddCall("SubscribeToTask", `{"id":"ID"}`),
		"POST " + httpdoor.JSONRPCPath + " " + oddCall("SendMessage", send("")),
		"POST " + httpdoor.JSONRPCPath + " " + oddCall("SendStreamingMessage", send("")),
		"POST " + httpdoor.JSONRPCPath + " " + oddCall("SendMessage", send(`,"configuration":{"taskPushNotificationConfig":{"url":"https://hooks.example/"}}`)),
		"POST " + httpdoor.JSONRPCPath + " " + oddCall("CreateTaskPushNotificationConfig", `{"taskId":"ID","url":"https://hooks.example/"}`),
		"POST " + httpdoor.JSONRPCPath + " " + oddCall("ListTaskPushNotificationConfigs", `{"taskId":"ID"}`),
		"POST " + httpdoor.JSONRPCPath + " " + oddCall("GetTaskPushNotificationConfig", `{"taskId":"ID","id":"c"}`),
		"POST " + httpdoor.JSONRPCPath + " " + oddCall("DeleteTaskPushNotificationConfig", `{"taskId":"ID","id":"c"}`),
		"GET " + httpdoor.RESTPath + "/tasks/ID",
		"GET " + httpdoor.RESTPath + "/tasks/ID:subscribe",
		"POST " + httpdoor.RESTPath + "/tasks/ID:cancel {}",
		"POST " + httpdoor.RESTPath + "/message:send " + send(""),
		"GET " + httpdoor.RESTPath + "/tasks/ID/pushNotificationConfigs",
		"GET /v1/tasks/ID", "POST /v1/tasks/ID/cancel", "GET /v1/tasks/ID/receipt",
	}
	for _, line := range asks {
		method, rest, _ := strings.Cut(line, " ")
		path, body, _ := strings.Cut(rest, " ")
		answers := map[string]string{}
		for name, id := range tasks {
			got, err := d.ask(d.one, method, strings.ReplaceAll(path, "ID", id), strings.ReplaceAll(body, "ID", id), stranger)
			if err != nil || !strings.Contains(got.body, `"not_found"`) {
				t.Errorf("%s task, %.120s: %d %.300s, %v", name, line, got.status, got.body, err)
			}
			got.header.Del("Date")
			header, err := json.Marshal(got.header)
			if err != nil {
				t.Fatal(err)
			}
			answers[name] = strings.ReplaceAll(string(header)+" "+got.body, id, "ID")
		}
		for name, got := range answers {
			if want := answers["no task's"]; got != want {
				t.Errorf("%.120s: of the task %s it says\n%.400s\nof none\n%.400s", line, name, got, want)
			}
		}
	}
	for _, act := range []string{"status", "result", "cancel", "receipt", "a2a"} {
		answers := map[string]string{}
		for name, id := range tasks {
			m := &nats.Msg{Subject: "agenticraft." + act, Header: nats.Header{"Authorization": {"Bearer " + made.Key}, "A2A-Version": {a2a.Version}}, Data: []byte(`{"task":"` + id + `"}`)}
			if act == "a2a" {
				m.Data = []byte(oddCall("GetTask", `{"id":"`+id+`"}`))
			}
			res, err := conn.RequestMsg(m, oddWait)
			if err != nil || !strings.Contains(string(res.Data), `"not_found"`) {
				t.Fatalf("%s task, %s over NATS: %v, %v", name, act, res, err)
			}
			var header []string
			for name, values := range res.Header {
				header = append(header, name+": "+strings.Join(values, ","))
			}
			slices.Sort(header)
			answers[name] = strings.ReplaceAll(strings.Join(header, "\n")+"\n"+string(res.Data), id, "ID")
		}
		for name, got := range answers {
			if want := answers["no task's"]; got != want {
				t.Errorf("%s over NATS: of the task %s it says\n%s\nof none\n%s", act, name, got, want)
			}
		}
	}
}
