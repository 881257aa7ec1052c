package nats

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"regexp"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/natsrpc"
)

// serviceName is the name that NATS tools list.
const serviceName = "agenticraft"

// act is one endpoint: the HTTP request that a message stands for.
type act struct {
	name     string
	method   string
	path     func(task string) string
	ofTask   bool // the payload is {"task": ID} and nothing else
	describe string
}

func (d *Door) acts() []act {
	fixed := func(path string) func(string) string { return func(string) string { return path } }
	task := func(suffix string) func(string) string {
		return func(id string) string { return "/v1/tasks/" + id + suffix }
	}
	return []act{
		{natsrpc.ActA2A, http.MethodPost, fixed(d.cfg.JSONRPC), false, "A2A 1.0 over JSON-RPC: " + natsrpc.BindingURI},
		{natsrpc.ActRun, http.MethodPost, fixed("/v1/runs"), false, "an execution in, its report out"},
		{natsrpc.ActStatus, http.MethodGet, task(""), true, `{"task": ID} in, how it is out`},
		{natsrpc.ActResult, http.MethodGet, task(""), true, `{"task": ID} in, its report out`},
		{natsrpc.ActCancel, http.MethodPost, task("/cancel"), true, `{"task": ID} in, its report out`},
		{natsrpc.ActReceipt, http.MethodGet, task("/receipt"), true, `{"task": ID} in, its receipt out`},
		{natsrpc.ActCard, http.MethodGet, fixed(a2a.CardPath), false, "the signed agent card"},
	}
}

// serve adds the micro service to the connection: each act for the whole
// cluster, in a queue group, and A2A, card and receipt for this node alone.
func (d *Door) serve(ctx context.Context, conn *nats.Conn, work *sync.WaitGroup) (micro.Service, error) {
	service, err := micro.AddService(conn, micro.Config{
		Name:        serviceName,
		Version:     semver(d.cfg.Version),
		Description: "Runs code in sandboxes, under policy and on the record.",
		QueueGroup:  "agenticraft",
		Metadata:    map[string]string{"node": string(d.cfg.Node), "did": d.cfg.Node.DID(), "cluster": d.cfg.Cluster, "subject": d.cfg.Subject, "binding": natsrpc.BindingURI},
	})
	if err != nil {
		return nil, err
	}
	responder := &natsrpc.Responder{Conn: conn, KeepAlive: d.cfg.KeepAlive, MaxTime: d.cfg.MaxTime}
	for _, a := range d.acts() {
		handler := micro.HandlerFunc(func(req micro.Request) { d.take(ctx, work, responder, a, req) })
		meta := map[string]string{"description": a.describe}
		if a.name == natsrpc.ActRun {
			meta["schema"] = d.cfg.Schema
		}
		err := service.AddEndpoint(a.name, handler, micro.WithEndpointSubject(natsrpc.Subject(d.cfg.Subject, a.name)),
			micro.WithEndpointMetadata(meta), micro.WithEndpointPendingLimits(maxPending, maxPendingMem))
		if err == nil && (a.name == natsrpc.ActA2A || a.name == natsrpc.ActCard || a.name == natsrpc.ActReceipt) {
			err = service.AddEndpoint("node-"+a.name, handler, micro.WithEndpointSubject(natsrpc.NodeSubject(d.cfg.Subject, d.cfg.Node, a.name)),
				micro.WithEndpointQueueGroupDisabled(), micro.WithEndpointPendingLimits(maxPending, maxPendingMem))
		}
		if err != nil {
			return nil, err
		}
	}
	return service, nil
}

// take answers one message, in a goroutine of its own if there is room for one.
func (d *Door) take(ctx context.Context, work *sync.WaitGroup, responder *natsrpc.Responder, a act, req micro.Request) {
	in := natsrpc.Request{Reply: req.Reply(), Header: nats.Header(req.Headers()), Data: req.Data()}
	if !natsrpc.MayReply(d.cfg.Subject, in.Reply) {
		d.log.DebugContext(ctx, "request without a subject to answer to", "subject", req.Subject())
		return
	}
	select {
	case d.turns <- struct{}{}:
	default:
		responder.Answer(ctx, in, busy, http.MethodPost, "/")
		return
	}
	work.Go(func() {
		defer func() { <-d.turns }()
		handler, path := d.cfg.Handler, ""
		if a.ofTask {
			task, err := readTask(in.Data)
			if err != nil {
				responder.Answer(ctx, in, refusal(http.StatusBadRequest, err), a.method, "/")
				return
			}
			path, in.Data = a.path(task), nil
		} else {
			path = a.path("")
		}
		if a.name == natsrpc.ActStatus {
			handler = brief{handler}
		}
		responder.Answer(ctx, in, handler, a.method, path)
	})
}

// maxTaskPayload is the most that a question about a task may be.
const maxTaskPayload = 1 << 10 // bytes

// readTask reads {"task": ID}.
func readTask(payload []byte) (string, *a2a.Error) {
	var ask struct {
		Task string `json:"task"`
	}
	if len(payload) > maxTaskPayload || a2a.Decode(payload, &ask) != nil || !a2a.ValidTaskID(ask.Task) {
		return "", a2a.Errorf(a2a.CodeInvalidRequest, `the payload is not {"task": ID} with the ID of a task`)
	}
	return ask.Task, nil
}

// refusal answers with an error in the form of the /v1 interface.
func refusal(status int, e *a2a.Error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(status)
		// The answer is made in memory.
		_ = json.NewEncoder(w).Encode(map[string]any{"title": http.StatusText(status), "status": status, "code": e.Code, "detail": e.Message})
	})
}

var busy = refusal(http.StatusTooManyRequests, a2a.Errorf(a2a.CodeBusy, "this node has as many requests over NATS as it takes"))

// brief shortens a task's report to how it is.
type brief struct{ http.Handler }

// ServeHTTP implements http.Handler.
func (b brief) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	held := &holder{ResponseWriter: w, status: http.StatusOK}
	b.Handler.ServeHTTP(held, r)
	var report a2a.Report
	out := held.body.Bytes()
	if held.status == http.StatusOK && json.Unmarshal(out, &report) == nil {
		short, err := json.Marshal(struct {
			Task     string           `json:"task"`
			Status   a2a.Status       `json:"status"`
			ExitCode int              `json:"exit_code"`
			Error    *a2a.ReportError `json:"error"`
		}{report.Task, report.Status, report.ExitCode, report.Error})
		if err == nil {
			out = append(short, '\n')
		}
	}
	w.WriteHeader(held.status)
	_, _ = w.Write(out) // who asked may be gone
}

type holder struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (h *holder) WriteHeader(status int)      { h.status = status }
func (h *holder) Write(p []byte) (int, error) { return h.body.Write(p) }

var semverForm = regexp.MustCompile(`^v?(\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?)`)

// semver is the version as micro services want it.
func semver(version string) string {
	if m := semverForm.FindStringSubmatch(version); m != nil {
		return m[1]
	}
	return "0.0.0-devel"
}
