package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/client"
	"github.com/agenticraft/node/a2a/natsrpc"
	"github.com/agenticraft/node/a2a/natsrpc/natstest"
	natsdoor "github.com/agenticraft/node/bridges/nats"
)

// The passwords of docs/bindings-nats.md.
const (
	brokerPassword = "for nodes"
	clientPassword = "for clients"
)

// configured reads a NATS server's configuration file. What the server keeps ends
// with the test.
func configured(t *testing.T, o *server.Options, file string) {
	t.Helper()
	o.StoreDir = "" // else the file's would be a second one
	if err := o.ProcessConfigFile(file); err != nil {
		t.Fatal(err)
	}
	o.StoreDir = t.TempDir()
}

// startConfigured does what `nats-server -c FILE` does.
func startConfigured(t *testing.T, file string) {
	t.Helper()
	natstest.Start(t, func(o *server.Options) { configured(t, o, file) })
}

// startBroker starts a NATS server with JetStream and the two users of
// docs/bindings-nats.md, and has nodes that are started from now on use it.
func startBroker(t *testing.T, queue bool) *natstest.Server {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "nats.conf")
	for _, command := range docCommands(t, readPage(t, "../../docs/bindings-nats.md")) {
		if text, ok := strings.CutPrefix(command.text, "cat > nats.conf <<'EOF'\n"); ok {
			if err := os.WriteFile(file, []byte(strings.TrimSuffix(text, "EOF\n")), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	broker := natstest.Start(t, func(o *server.Options) {
		configured(t, o, file)
		o.Port = server.RANDOM_PORT
	})
	file = filepath.Join(dir, "password")
	if err := os.WriteFile(file, []byte(brokerPassword+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AGENTICRAFT_NATS_URL", broker.URL)
	t.Setenv("AGENTICRAFT_NATS_USER", "node")
	t.Setenv("AGENTICRAFT_NATS_PASSWORD_FILE", file)
	if queue {
		t.Setenv("AGENTICRAFT_NATS_QUEUE", "true")
	}
	return broker
}

// overNATS is an agent's client of a cluster, over NATS alone.
func (w *wire) overNATS(conn *nats.Conn) *client.Client {
	w.t.Helper()
	cl, err := client.New(client.Config{
		URL: natsrpc.URL(""), HTTPClient: &http.Client{Transport: &natsrpc.Transport{Conn: conn}}, Key: w.key, Audience: w.audience,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return cl
}

// awaitService waits until every node serves.
func awaitService(c *testCluster, conn *nats.Conn, nodes int) []micro.Ping {
	c.t.Helper()
	var found []micro.Ping
	c.await("all nodes on NATS", func() bool {
		found = nil
		inbox := conn.NewInbox()
		sub, err := conn.SubscribeSync(inbox)
		if err != nil {
			c.t.Fatal(err)
		}
		defer func() { _ = sub.Unsubscribe() }() // the connection's end does it, too
		if err := conn.PublishRequest("$SRV.PING.agenticraft", inbox, nil); err != nil {
			return false
		}
		for len(found) < nodes {
			m, err := sub.NextMsg(time.Second)
			if err != nil {
				return false
			}
			var p micro.Ping
			if err := json.Unmarshal(m.Data, &p); err != nil {
				c.t.Fatal(err)
			}
			found = append(found, p)
		}
		return true
	})
	return found
}

func TestNATSDoor(t *testing.T) {
	broker := startBroker(t, false)
	c := startCluster(t, 3)
	w := newWire(t, c)
	conn := broker.Connect(nats.UserInfo("client", clientPassword))
	ids := map[string]bool{}
	for _, p := range awaitService(c, conn, 3) {
		ids[p.Metadata["node"]] = true
	}
	for _, n := range c.Nodes {
		if !ids[string(n.ID)] {
			t.Errorf("node %s is not among the services %v", n.ID, ids)
		}
	}
	if said := c.awaitHealthy(); !strings.Contains(said, "ok   nats") {
		t.Errorf("doctor:\n%s", said)
	}

	ask := func(act, key string, payload any) (*nats.Msg, string) {
		t.Helper()
		raw, err := json.Marshal(payload)
		if err != nil {
			t.Fatal(err)
		}
		m := &nats.Msg{Subject: "agenticraft." + act, Header: nats.Header{}, Data: raw}
		if key != "" {
			m.Header.Set("Authorization", "Bearer "+key)
		}
		res, err := conn.RequestMsg(m, conditionMet)
		if err != nil {
			t.Fatalf("%s: %v", act, err)
		}
		if strings.Contains(string(res.Data), c.APIKey) {
			t.Error("the answer holds the API key") // I10
		}
		return res, res.Header.Get(micro.ErrorCodeHeader)
	}
	run := a2a.Execution{Language: "starlark", Code: "print('hello')\nresult = 6 * 7"}
	var rep a2a.Report
	if m, code := ask("run", c.APIKey, run); code != "" || json.Unmarshal(m.Data, &rep) != nil || string(rep.Result) != "42" || rep.Outcome == nil {
		t.Fatalf("run: %s %s", code, m.Data)
	}
	task := map[string]string{"task": rep.Task}
	for act, want := range map[string]string{"status": `"status":"succeeded"`, "result": `"stdout":"hello`, "receipt": `"checkpoint"`} {
		if m, code := ask(act, c.APIKey, task); code != "" || !strings.Contains(string(m.Data), want) {
			t.Errorf("%s: %s %.300s", act, code, m.Data)
		}
	}
	if m, code := ask("status", c.APIKey, task); code != "" || strings.Contains(string(m.Data), "hello") {
		t.Errorf("status tells of output: %s", m.Data)
	}
	if m, code := ask("card", "", nil); code != "" {
		t.Errorf("card: %s %s", code, m.Data)
	} else if card, _, err := a2a.VerifyCard(m.Data); err != nil || card.SupportedInterfaces[3].ProtocolBinding != natsrpc.BindingURI {
		t.Errorf("card: %+v, %v", card, err)
	}
	for name, tc := range map[string]struct {
		act, key string
		payload  any
		code     string
	}{
		"nobody":             {"run", "", run, "401"},
		"wrong key":          {"run", "ac_x_y", run, "401"},
		"not an execution":   {"run", c.APIKey, map[string]any{"language": "starlark", "kode": ""}, "400"},
		"nobody asks":        {"result", "", task, "401"},
		"no task":            {"result", c.APIKey, map[string]string{"task": "../../keys"}, "400"},
		"more than the task": {"cancel", c.APIKey, map[string]string{"task": rep.Task, "force": "yes"}, "400"},
		"unknown task":       {"result", c.APIKey, map[string]string{"task": strings.Repeat("0", 32)}, "404"},
		"ended task":         {"cancel", c.APIKey, task, "400"},
	} {
		if m, code := ask(tc.act, tc.key, tc.payload); code != tc.code {
			t.Errorf("%s: code %q, want %s: %s", name, code, tc.code, m.Data)
		}
	}
	if m, _ := ask("a2a", c.APIKey, []int{1}); !strings.Contains(string(m.Data), "-32009") {
		t.Errorf("A2A without a version: %s", m.Data)
	}

	// A signed request is the same through every door, and through every node.
	over := w.overNATS(conn)
	req := w.sign(w.request("result = 'once'"), nil)
	first, err := over.Send(t.Context(), req, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		again, err := over.Send(t.Context(), req, nil)
		if err != nil || again.ID != first.ID {
			t.Errorf("again over NATS: %+v, %v", again, err)
		}
	}
	if again, err := w.client.Send(t.Context(), req, nil); err != nil || again.ID != first.ID {
		t.Errorf("again over HTTP: %+v, %v", again, err)
	}
	var page logPage
	c.json(&page, "audit", "list", "--task", string(first.ID), "--kind", "intent")
	if len(page.Entries) != 1 {
		t.Errorf("%d intents, want 1", len(page.Entries))
	}
	brokerRestarts(t, broker, c, w, over)

	broker.Stop()
	c.await("the doctor to miss the broker", func() bool {
		r := c.run("doctor")
		return r.code == exitFailed && strings.Contains(r.stdout, "BAD  nats")
	})
	if rep, r := c.exec(0, "--lang", "starlark", "-c", "result = 1"); r.code != exitOK {
		t.Errorf("without a broker a node runs nothing: %+v", rep)
	}
}

// brokerRestarts: the broker goes away in the middle of a run and comes back.
// The run goes on, the client finds it again, and it ran once.
func brokerRestarts(t *testing.T, broker *natstest.Server, c *testCluster, w *wire, over *client.Client) {
	t.Helper()
	needPython(t)
	before := w.intents()
	slow, err := a2a.NewRequest(a2a.Execution{Language: "python", Code: "import time\nprint('began', flush=True)\ntime.sleep(3)\nprint('ended')\nresult = 'through'"})
	if err != nil {
		t.Fatal(err)
	}
	req := w.sign(slow, nil)
	restarted := false
	watch := client.Watcher{Output: func(_ string, _ int64, data []byte) {
		if !restarted && strings.Contains(string(data), "began") {
			restarted = true
			broker.Restart()
		}
	}}
	ctx, cancel := context.WithTimeout(t.Context(), conditionMet)
	defer cancel()
	task, err := client.Follow(over.Stream(ctx, req, nil), watch)
	if err != nil || !restarted {
		t.Fatalf("restarted %t, %v", restarted, err)
	}
	if rep, err := a2a.ReportOf(task); err != nil || string(rep.Result) != `"through"` || rep.Stdout != "began\nended\n" {
		t.Errorf("report %+v, %v", rep, err)
	}
	if n := w.intents(); n != before+1 {
		t.Errorf("%d intents, want 1", n-before)
	}
}

// The queue: a request outlives the absence of nodes, runs once however often
// it is delivered, and its output is for its owner only.
func TestNATSQueue(t *testing.T) {
	needPython(t)
	broker := startBroker(t, true)
	c := startCluster(t, 3)
	w := newWire(t, c)
	conn := broker.Connect(nats.UserInfo("client", clientPassword))
	admin := broker.Connect(nats.UserInfo("node", brokerPassword))
	awaitService(c, conn, 3)
	c.await("the queue to be worked on", func() bool {
		return strings.Contains(c.run("doctor").stdout, "works on the queue")
	})
	over := w.overNATS(conn)
	ended, err := conn.SubscribeSync(natsrpc.DoneSubject(natsrpc.DefaultSubject, "*"))
	if err != nil {
		t.Fatal(err)
	}
	dead, err := admin.SubscribeSync("agenticraft.dead.>")
	if err != nil {
		t.Fatal(err)
	}
	for _, nc := range []*nats.Conn{conn, admin} {
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	enqueue := func(req *sdk.SendMessageRequest) string {
		t.Helper()
		raw, err := over.Signed(req)
		if err != nil {
			t.Fatal(err)
		}
		task, err := natsrpc.Enqueue(t.Context(), conn, natsrpc.DefaultSubject, raw)
		if err != nil {
			t.Fatal(err)
		}
		return task
	}
	await := func(task string) natsdoor.Done {
		t.Helper()
		for {
			m, err := ended.NextMsg(conditionMet)
			if err != nil {
				t.Fatalf("the end of %s: %v\n%s", task, err, c.logs())
			}
			var done natsdoor.Done
			if err := json.Unmarshal(m.Data, &done); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(m.Data), "secret") {
				t.Errorf("the end tells what the program wrote: %s", m.Data)
			}
			if done.Task == task {
				return done
			}
		}
	}
	letter := func(code string) {
		t.Helper()
		m, err := dead.NextMsg(conditionMet)
		if err != nil || m.Header.Get("Agenticraft-Error-Code") != code {
			t.Errorf("dead letter %+v, %v, want code %s", m, err, code)
		}
	}

	req := w.sign(w.request("print('secret')\nresult = 'queued'"), nil)
	task := enqueue(req)
	if again := enqueue(req); again != task {
		t.Errorf("the same request is task %s and %s", task, again)
	}
	if done := await(task); done.Status != a2a.Succeeded {
		t.Errorf("end: %+v", done)
	}
	got, err := over.Get(t.Context(), task, nil)
	if err != nil {
		t.Fatal(err)
	}
	if rep, err := a2a.ReportOf(got); err != nil || string(rep.Result) != `"queued"` {
		t.Errorf("report %+v, %v", rep, err)
	}

	expired := enqueue(w.sign(w.request("result = 1"), func(o *a2a.SignOptions) { o.Now = time.Now().Add(-time.Hour) }))
	if done := await(expired); done.Error == nil || done.Error.Code != a2a.CodeExpired {
		t.Errorf("expired: %+v", done)
	}
	letter(a2a.CodeExpired)
	if err := conn.Publish(natsrpc.QueueSubject(natsrpc.DefaultSubject), []byte(`{"message":{"messageId":"1","role":"ROLE_USER","parts":[{"text":"x"}]}}`)); err != nil {
		t.Fatal(err)
	}
	letter(a2a.CodeSignatureMissing)
	if err := conn.Publish(natsrpc.QueueSubject(natsrpc.DefaultSubject), []byte("\x00garbage")); err != nil {
		t.Fatal(err)
	}
	letter(a2a.CodeInvalidRequest)

	// The node that works on it dies in the middle: whoever gets it next finds
	// the intent, and runs nothing twice.
	slow, err := a2a.NewRequest(a2a.Execution{Language: "python", Code: "import time; time.sleep(30)", On: "local"})
	if err != nil {
		t.Fatal(err)
	}
	task = enqueue(w.sign(slow, nil))
	var page logPage
	c.await("the intent", func() bool {
		c.json(&page, "audit", "list", "--task", task, "--kind", "intent")
		return len(page.Entries) == 1
	})
	author := decodeEntry(t, page.Entries[0]).Author
	left := 0
	for i, n := range c.Nodes {
		if n.ID == author {
			c.kill(i)
		} else {
			left = i
		}
	}
	if done := await(task); done.Status != a2a.Lost {
		t.Errorf("end after the death of its node: %+v", done)
	}
	if err := json.Unmarshal([]byte(c.run("audit", "list", "--json", "--task", task, "--kind", "intent", "--server", c.Nodes[left].HTTP).stdout), &page); err != nil || len(page.Entries) != 1 {
		t.Errorf("intents: %+v, %v", page.Entries, err)
	}
}

// A configuration that would send requests in the clear, or show a secret, is
// refused with the name of what is wrong.
func TestNATSConfiguration(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	access := func(a natsdoor.Access) error {
		_, err := natsSettings{Access: a}.open(natsdoor.Config{Node: "x", Cluster: "c", Handler: http.NotFoundHandler()})
		return err
	}
	for name, tc := range map[string]struct {
		access natsdoor.Access
		want   string
	}{
		"clear to another machine": {natsdoor.Access{URL: "nats://10.0.0.1:4222", User: "u", PasswordFile: secret}, "tls://10.0.0.1:4222"},
		"one of two":               {natsdoor.Access{URL: "tls://127.0.0.1:1,nats://example.org:4222", User: "u", PasswordFile: secret}, "needs TLS"},
		"nobody to another":        {natsdoor.Access{URL: "tls://10.0.0.1:4222"}, "needs credentials"},
		"password in the URL":      {natsdoor.Access{URL: "nats://u:hidden@127.0.0.1:4222"}, "nats_password_file"},
		"not a URL":                {natsdoor.Access{URL: "nats://u:hidden@%%%"}, "not a URL"},
		"http":                     {natsdoor.Access{URL: "http://127.0.0.1:1"}, "neither nats://"},
		"no host":                  {natsdoor.Access{URL: "nats://"}, "neither nats://"},
		"user alone":               {natsdoor.Access{URL: "nats://127.0.0.1:1", User: "u"}, "belong together"},
		"no such password":         {natsdoor.Access{URL: "nats://127.0.0.1:1", User: "u", PasswordFile: dir + "/no"}, "nats_password_file"},
		"two ways":                 {natsdoor.Access{URL: "nats://127.0.0.1:1", User: "u", PasswordFile: secret, Creds: secret}, "exclude each other"},
		"no such creds":            {natsdoor.Access{URL: "nats://127.0.0.1:1", Creds: dir + "/no"}, "nats_creds"},
		"no seed":                  {natsdoor.Access{URL: "nats://127.0.0.1:1", NKey: secret}, "nats_nkey"},
		"no such CA":               {natsdoor.Access{URL: "tls://127.0.0.1:1", CA: dir + "/no"}, "nats_ca"},
		"certificate without key":  {natsdoor.Access{URL: "tls://127.0.0.1:1", Cert: secret}, "nats_cert_key"},
	} {
		err := access(tc.access)
		known := new(a2a.Error)
		if !errors.As(err, &known) || known.Code != "usage" || !strings.Contains(known.Message, tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
		if err != nil && strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: the error shows the password", name) // I10
		}
	}
	if err := access(natsdoor.Access{URL: "nats://127.0.0.1:1,nats://localhost:2"}); err != nil {
		t.Error(err)
	}
}
