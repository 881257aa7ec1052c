// Package natsrpc is the A2A binding over NATS, both ends of it: JSON-RPC as
// request and reply, with streams of numbered messages. docs/bindings-nats.md
// is its specification.
//
// A request is one message: the JSON-RPC request as the payload, the service
// parameters as headers. The reply is one or more messages to its inbox, each
// with its kind and its number in headers, so that whoever waits knows what was
// lost on the way: core NATS delivers at most once. [Transport] lets any A2A
// client that speaks JSON-RPC over HTTP speak it over NATS; [Responder] has an
// http.Handler answer.
package natsrpc

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/identity"
)

// BindingURI names the binding in agent cards.
const BindingURI = "https://agenticraft.dev/a2a/binding/nats/v1"

// DefaultSubject is what the subjects of a cluster begin with by default.
const DefaultSubject = "agenticraft"

// The acts that a door serves, each on a subject below the cluster's own.
const (
	ActA2A     = "a2a"     // JSON-RPC, all operations of A2A
	ActCard    = "card"    // the agent card
	ActReceipt = "receipt" // the receipt of a task
	ActRun     = "run"     // an execution in, its report out
	ActStatus  = "status"
	ActResult  = "result"
	ActCancel  = "cancel"
)

// Headers of replies.
const (
	HeaderFrame = "A2A-Frame"    // the kind of the message
	HeaderSeq   = "A2A-Seq"      // its number in the reply, from 1
	HeaderEvent = "A2A-Event-ID" // of an event: where a stream may be resumed after
)

// HeaderKeepAlive, in a request, asks for signs of life while an answer takes
// its time. Streams have them unasked.
const HeaderKeepAlive = "A2A-Keep-Alive"

// Headers by which NATS micro services tell of errors (ADR-32).
const (
	headerError     = "Nats-Service-Error"
	headerErrorCode = "Nats-Service-Error-Code"
)

// KeepAlive is how often a waiting client gets a sign of life; one that had
// none for three times as long gives up and resumes.
const KeepAlive = 15 * time.Second

const (
	maxHeaders  = 64 << 10 // bytes of a request's headers
	maxSubject  = 64       // bytes of a cluster's subject
	frameMargin = 4 << 10  // bytes of a message that are left for its headers
	lastEventID = "Last-Event-ID"
)

// requestHeaders are those that cross from NATS to the handler; all others end
// at the door.
var requestHeaders = []string{
	sdk.SvcParamVersion, sdk.SvcParamExtensions, "Authorization", lastEventID, "Idempotency-Key", "If-None-Match", "Traceparent", "Tracestate",
}

// answerHeaders are those that cross back.
var answerHeaders = []string{sdk.SvcParamExtensions, "Content-Type", "Cache-Control", "Etag", "Retry-After"}

var subjectForm = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)

// CheckSubject reports what is wrong with a cluster's subject.
func CheckSubject(prefix string) error {
	if len(prefix) > maxSubject || !subjectForm.MatchString(prefix) || strings.HasPrefix(prefix, "_") {
		return fmt.Errorf("%q is not a subject of at most %d letters, digits, - and _ with dots between", prefix, maxSubject)
	}
	return nil
}

// Subject is where a node of the cluster, any, performs an act.
func Subject(prefix, act string) string { return prefix + "." + act }

// NodeSubject is where one node performs an act.
func NodeSubject(prefix string, node identity.ID, act string) string {
	return prefix + ".node." + string(node) + "." + act
}

// DoneSubject is where the end of a queued task is told.
func DoneSubject(prefix, task string) string { return prefix + ".done." + task }

// QueueSubject is where signed requests are queued.
func QueueSubject(prefix string) string { return prefix + ".queue" }

// StreamName is the name of the cluster's JetStream streams: upper-case, with
// what stands behind it.
func StreamName(prefix, what string) string {
	return strings.ToUpper(strings.ReplaceAll(prefix, ".", "_")) + "_" + what
}

// MayReply reports whether a node answers to the subject. A requester names it,
// so it must not lead the node's own rights astray: not into NATS's system and
// JetStream interfaces, nor into the cluster's own subjects.
func MayReply(prefix, subject string) bool {
	return subject != "" && len(subject) <= 4*maxSubject && !strings.HasPrefix(subject, "$") &&
		subject != prefix && !strings.HasPrefix(subject, prefix+".")
}

// URL is an address for a [Transport]: of one node, or of any if node is "".
func URL(node identity.ID) string {
	if node == "" {
		return "http://any/"
	}
	return "http://" + string(node) + "/"
}

// errLost says that a reply has a hole or came to no end; the request may be
// sent again if it is signed, a stream resumed.
var errLost = errors.New("a part of the reply was lost on its way over NATS")

// taskPayload asks about one task.
type taskPayload struct {
	Task string `json:"task"`
}

// receiptPath is where HTTP doors serve receipts, which a [Transport] maps to
// [ActReceipt].
const (
	receiptPrefix = "/v1/tasks/"
	receiptSuffix = "/receipt"
)

func taskOfReceipt(path string) (string, bool) {
	task, ok := strings.CutPrefix(path, receiptPrefix)
	if !ok {
		return "", false
	}
	task, ok = strings.CutSuffix(task, receiptSuffix)
	return task, ok && a2a.ValidTaskID(task)
}

// copyHeaders copies the named ones, each joined to one value.
func copyHeaders(into func(name, value string), from http.Header, names []string) {
	for _, name := range names {
		if values := from.Values(name); len(values) > 0 {
			into(name, strings.Join(values, ","))
		}
	}
}
