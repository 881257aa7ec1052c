package client

import (
	"bytes"
	"context"
	"io"
	"iter"
	"net/http"
	"strconv"
	"sync"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
)

// Numbered is an event of a stream with its number, after which the stream can
// be taken up again. Zero is none: a foreign server need not number.
type Numbered struct {
	Number uint64
	Event  sdk.Event
}

// lastEventID is the header by which a reader says what he saw last.
const lastEventID = "Last-Event-ID"

// SubscribeAfter follows a task, from after an event if after is not nil. A task
// that has ended gives what came after that event. It resumes nothing: who has
// the numbers can.
func (c *Client) SubscribeAfter(ctx context.Context, task string, after *uint64, header http.Header) iter.Seq2[Numbered, error] {
	header = header.Clone()
	if header == nil {
		header = http.Header{}
	}
	if after != nil {
		header.Set(lastEventID, strconv.FormatUint(*after, 10))
	}
	return numbered(ctx, func(ctx context.Context) iter.Seq2[sdk.Event, error] { return c.subscribe(ctx, task, header) })
}

// StreamNumbered is [Client.Stream] with the number of each event. It resumes
// nothing: who has the numbers can.
func (c *Client) StreamNumbered(ctx context.Context, req *sdk.SendMessageRequest, header http.Header) iter.Seq2[Numbered, error] {
	return numbered(ctx, func(ctx context.Context) iter.Seq2[sdk.Event, error] { return c.streamOnce(ctx, req, header) })
}

// numbered yields the events that open gives with their numbers.
func numbered(ctx context.Context, open func(context.Context) iter.Seq2[sdk.Event, error]) iter.Seq2[Numbered, error] {
	return func(yield func(Numbered, error) bool) {
		seen := new(numbers)
		for e, err := range open(context.WithValue(ctx, numbersKey{}, seen)) {
			n := Numbered{Event: e}
			if err == nil {
				n.Number = seen.pop()
			}
			if !yield(n, err) {
				return
			}
		}
	}
}

type numbersKey struct{}

// numbers hands the ids of a stream's events past the codec, which drops them
// but keeps the order: one for each event, 0 if it had none.
type numbers struct {
	mu   sync.Mutex
	next []uint64
}

func (n *numbers) push(number uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.next = append(n.next, number)
}

func (n *numbers) pop() uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.next) == 0 {
		return 0
	}
	first := n.next[0]
	n.next = n.next[1:]
	return first
}

// numbering reads the ids of a stream as it passes.
type numbering struct {
	io.ReadCloser
	to   *numbers
	line []byte // the beginning of the line that is being read
	id   uint64 // of the event that is being read
	data bool   // it has data
}

const maxIDLine = 64 // bytes; of a longer line only the beginning counts

func (n *numbering) Read(p []byte) (int, error) {
	count, err := n.ReadCloser.Read(p)
	for rest := p[:count]; len(rest) > 0; {
		line, after, ended := bytes.Cut(rest, []byte{'\n'})
		n.line = append(n.line, line[:min(len(line), maxIDLine-len(n.line))]...)
		if ended {
			n.endLine(bytes.TrimSuffix(n.line, []byte{'\r'}))
			n.line = n.line[:0]
		}
		rest = after
	}
	return count, err
}

func (n *numbering) endLine(line []byte) {
	switch {
	case len(line) == 0:
		if n.data {
			n.to.push(n.id)
		}
		n.id, n.data = 0, false
	case bytes.HasPrefix(line, []byte("data:")):
		n.data = true
	case bytes.HasPrefix(line, []byte("id:")):
		n.id, _ = strconv.ParseUint(string(bytes.TrimSpace(line[len("id:"):])), 10, 63)
	}
}
