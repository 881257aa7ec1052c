package natsrpc

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/agenticraft/node/a2a"
)

// Enqueue puts a signed request, as [a2a.MarshalRequest] gives it, into the
// cluster's JetStream queue and returns the id of its task. When it returns
// without an error, the queue holds the request on disk. The same request
// again is the same task. A request whose signature expires before a node is
// there is not run.
//
// The end is told on [DoneSubject] to whoever listens then; what the program
// wrote, its owner asks a node for.
func Enqueue(ctx context.Context, conn *nats.Conn, subject string, signed []byte) (task string, err error) {
	facts, err := a2a.VerifyRaw(signed)
	if err != nil {
		return "", err
	}
	js, err := jetstream.New(conn)
	if err != nil {
		return "", fmt.Errorf("queue a request: %w", err)
	}
	task = facts.Task()
	_, err = js.Publish(ctx, QueueSubject(subject), signed, jetstream.WithMsgID(task))
	switch {
	case errors.Is(err, jetstream.ErrNoStreamResponse):
		return "", a2a.Errorf(a2a.CodeUnavailable, "no stream of the NATS server takes requests on %s", QueueSubject(subject))
	case err != nil:
		return "", fmt.Errorf("queue a request: %w", err)
	}
	return task, nil
}
