package client

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/agenticraft/node/a2a"
)

// roundTripper caps what a server may send and reads the errors of doors that
// answer by HTTP status.
type roundTripper struct {
	next http.RoundTripper
	max  int64 // bytes
}

const (
	maxProblem  = 64 << 10 // bytes of an error's body that are read
	eventStream = "text/event-stream"
)

func (t *roundTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	next := t.next
	if next == nil {
		next = http.DefaultTransport
	}
	resp, err := next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		resp.Body = &capped{ReadCloser: resp.Body, left: t.max}
		if seen, ok := req.Context().Value(numbersKey{}).(*numbers); ok {
			resp.Body = &numbering{ReadCloser: resp.Body, to: seen}
		}
		if strings.Contains(req.Header.Get("Accept"), eventStream) && !strings.HasPrefix(resp.Header.Get("Content-Type"), eventStream) {
			return asStream(resp)
		}
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, problem(resp)
}

// asStream makes a stream of one event from a plain answer: a server that
// refuses a streaming request before its first event answers like that, and
// the SDK's codec would see a stream of nothing.
func asStream(resp *http.Response) (*http.Response, error) {
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
	if err != nil {
		return nil, err
	}
	var line bytes.Buffer
	line.WriteString("data: ")
	if err := json.Compact(&line, text); err != nil {
		return nil, a2a.Errorf(a2a.CodeInternal, "the server answered a streaming request with something that is neither a stream nor JSON")
	}
	line.WriteString("\n\n")
	resp.Header.Set("Content-Type", eventStream)
	resp.ContentLength = int64(line.Len())
	resp.Body = io.NopCloser(&line)
	return resp, nil
}

// problem reads an error from an HTTP status and, where there is one, an RFC
// 9457 body with our members code and hint.
func problem(resp *http.Response) *a2a.Error {
	e := &a2a.Error{Code: a2a.CodeInternal, Message: "the server answered " + resp.Status}
	switch status := resp.StatusCode; {
	case status == http.StatusUnauthorized:
		e.Code = a2a.CodeUnauthenticated
	case status == http.StatusForbidden:
		e.Code = a2a.CodeDenied
	case status == http.StatusNotFound:
		e.Code = a2a.CodeNotFound
	case status == http.StatusRequestEntityTooLarge:
		e.Code = a2a.CodeTooLarge
	case status == http.StatusTooManyRequests:
		e.Code = a2a.CodeBusy
	case status == http.StatusBadGateway, status == http.StatusServiceUnavailable, status == http.StatusGatewayTimeout:
		e.Code = a2a.CodeUnavailable
	case status >= 400 && status < 500:
		e.Code = a2a.CodeInvalidRequest
	}
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 && s < 3600 {
		e.RetryAfter = time.Duration(s) * time.Second
	}
	var body struct {
		Code   string `json:"code"`
		Detail string `json:"detail"`
		Title  string `json:"title"`
		Hint   string `json:"hint"`
	}
	if json.NewDecoder(io.LimitReader(resp.Body, maxProblem)).Decode(&body) == nil {
		if body.Code != "" {
			e.Code = body.Code
		}
		if body.Detail != "" {
			e.Message = body.Detail
		} else if body.Title != "" {
			e.Message = body.Title
		}
		e.Hint = body.Hint
	}
	return e
}

// errReply is what a read of an answer beyond the cap returns.
var errReply = errors.New("answer is too large")

type capped struct {
	io.ReadCloser
	left int64
}

func (c *capped) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, fmt.Errorf("a2a client: %w", errReply)
	}
	n, err := c.ReadCloser.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, err
}
