package server_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/a2apb/v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/agenticraft/node/a2a"
)

// Lists of push configurations have the same pages on every binding, and every id
// that a configuration may have can be named on each.
func TestPagesOfPushConfigurations(t *testing.T) {
	w := pushing(t, &fakePath{run: hello})
	anna := w.asKey(t, "operator")
	task, err := w.client(t, newKey(t)).Send(t.Context(), request(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	hook, _ := hooked(t)
	ids := []string{"%2F", "a", "a/b", "é?#"}
	for _, id := range ids {
		if _, err := anna.CreatePush(t.Context(), &sdk.PushConfig{TaskID: task.ID, ID: id, URL: hook}); err != nil {
			t.Fatal(err)
		}
	}
	rest := openREST(t, w)
	conn := dialGRPC(t, openGRPC(t, w))
	over := a2apb.NewA2AServiceClient(conn)

	ask := func(method, url, body string) string {
		req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header = http.Header{"A2a-Version": {a2a.Version}, "Content-Type": {"application/json"}, "Authorization": {"Bearer operator"}}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("%s %s: %d %s, %v", method, url, res.StatusCode, text, err)
		}
		return string(text)
	}
	read := func(text string) *a2apb.ListTaskPushNotificationConfigsResponse {
		out := new(a2apb.ListTaskPushNotificationConfigsResponse)
		if err := protojson.Unmarshal([]byte(text), out); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		return out
	}
	for name, list := range map[string]func(token string) *a2apb.ListTaskPushNotificationConfigsResponse{
		"JSON-RPC": func(token string) *a2apb.ListTaskPushNotificationConfigsResponse {
			params, _ := json.Marshal(map[string]any{"taskId": task.ID, "pageSize": 1, "pageToken": token})
			text := ask(http.MethodPost, w.http.URL, `{"jsonrpc":"2.0","id":1,"method":"ListTaskPushNotificationConfigs","params":`+string(params)+`}`)
			var answer struct{ Result json.RawMessage }
			if err := json.Unmarshal([]byte(text), &answer); err != nil {
				t.Fatal(err)
			}
			return read(string(answer.Result))
		},
		"HTTP+JSON": func(token string) *a2apb.ListTaskPushNotificationConfigsResponse {
			return read(ask(http.MethodGet, rest.URL+"/tasks/"+string(task.ID)+"/pushNotificationConfigs?pageSize=1&page_token="+url.QueryEscape(token), ""))
		},
		"gRPC": func(token string) *a2apb.ListTaskPushNotificationConfigsResponse {
			ctx := metadata.AppendToOutgoingContext(t.Context(), "a2a-version", a2a.Version, "authorization", "Bearer operator")
			out, err := over.ListTaskPushNotificationConfigs(ctx, &a2apb.ListTaskPushNotificationConfigsRequest{TaskId: string(task.ID), PageSize: 1, PageToken: token})
			if err != nil {
				t.Fatal(err)
			}
			return out
		},
	} {
		token := ""
		for n, id := range ids {
			page := list(token)
			token = page.GetNextPageToken()
			if len(page.GetConfigs()) != 1 || page.GetConfigs()[0].GetId() != id || (token == "") != (n == len(ids)-1) {
				t.Errorf("%s: page %d is %v, want %q", name, n, page, id)
			}
		}
	}
	for _, tenant := range []string{"", "/acme"} {
		for _, id := range ids {
			at := rest.URL + tenant + "/tasks/" + string(task.ID) + "/pushNotificationConfigs/" + url.PathEscape(id)
			var got struct{ ID string }
			if text := ask(http.MethodGet, at, ""); json.Unmarshal([]byte(text), &got) != nil || got.ID != id {
				t.Errorf("GET %s: %s, want %q", at, text, id)
			}
		}
	}
	for _, id := range ids {
		if text := ask(http.MethodDelete, rest.URL+"/tasks/"+string(task.ID)+"/pushNotificationConfigs/"+url.PathEscape(id), ""); strings.TrimSpace(text) != "{}" {
			t.Errorf("DELETE is answered %q, want the JSON of nothing", text)
		}
	}
	if all, err := anna.ListPushes(t.Context(), string(task.ID)); err != nil || len(all) != 0 {
		t.Errorf("after all were deleted: %+v, %v", all, err)
	}
}
