package agent

import (
	"context"
	"sync"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/sandbox"
)

// connections records what the program of one request connected to.
type connections struct {
	agent *Agent
	req   *request
	wg    sync.WaitGroup
}

func (a *Agent) connections(req *request) *connections { return &connections{agent: a, req: req} }

// over records a connection that has ended. It does not wait for the log; the
// sandbox bounds how many there are.
func (c *connections) over(conn sandbox.Connection) {
	entry := c.agent.entry(audit.KindConnection, c.req, audit.ConnectionBody{
		Host: conn.Destination.Host, Port: int(conn.Destination.Port),
		Sent: conn.Sent, Received: conn.Received, MS: conn.Duration.Milliseconds(), Verdict: string(conn.Verdict),
	})
	entry.Attempt, entry.Ref = 1, c.req.intent
	c.wg.Go(func() {
		ctx, cancel := c.agent.owed(context.Background())
		defer cancel()
		for {
			_, err := c.agent.cfg.Recorder.Record(ctx, entry)
			if err == nil {
				return
			}
			if final(ctx, err) {
				c.agent.log.ErrorContext(ctx, "connection not recorded", "task", c.req.task, "verdict", conn.Verdict, "err", err)
				return
			}
			sleep(ctx, outcomeRetry)
		}
	})
}

// wait returns when every connection is on record, or cannot be.
func (c *connections) wait() { c.wg.Wait() }

// destinations are those that policy allows, which are at most those that were
// asked for. What cannot be read is no destination, and no sandbox takes it.
func destinations(req *request) []sandbox.Destination {
	all, err := sandbox.ParseNetwork(req.decision.Obligations.Network)
	if err != nil {
		return []sandbox.Destination{{}}
	}
	return all
}
