package main

import (
	"io"
	"net/http"
	"sync"
)

// inProcess is an HTTP transport to a handler of this very process. What it sends
// counts as sent from where the outer request came from: its address and its TLS
// client are the ones that are proved and counted.
type inProcess struct {
	to    http.Handler
	outer *http.Request
}

// RoundTrip implements [http.RoundTripper]. The answer's body is as it is written;
// whoever closes it before the end ends the request.
func (t inProcess) RoundTrip(req *http.Request) (*http.Response, error) {
	inner := req.Clone(req.Context())
	inner.RequestURI, inner.RemoteAddr, inner.TLS = req.URL.RequestURI(), t.outer.RemoteAddr, t.outer.TLS
	if inner.Body == nil {
		inner.Body = http.NoBody
	}
	body, out := io.Pipe()
	w := &piped{header: http.Header{}, out: out, begun: make(chan struct{})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { _ = inner.Body.Close() }() // as a transport must
		defer func() { _ = out.Close() }()        // a pipe's never fails
		// A handler that panics breaks off its own answer, as under net/http's server.
		defer func() {
			status := http.StatusOK
			if recover() != nil {
				status = http.StatusInternalServerError
				_ = out.CloseWithError(io.ErrUnexpectedEOF)
			}
			w.WriteHeader(status)
		}()
		t.to.ServeHTTP(w, inner)
	}()
	<-w.begun
	return &http.Response{
		Status: http.StatusText(w.status), StatusCode: w.status, Header: w.sent, Body: served{body, done},
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, ContentLength: -1, Request: req,
	}, nil
}

// served is an answer's body; closing it waits for the handler.
type served struct {
	*io.PipeReader
	done <-chan struct{}
}

func (s served) Close() error {
	err := s.PipeReader.Close()
	<-s.done
	return err
}

// piped writes an answer into a pipe.
type piped struct {
	header, sent http.Header
	out          *io.PipeWriter
	once         sync.Once
	status       int
	begun        chan struct{}
}

func (p *piped) Header() http.Header { return p.header }

func (p *piped) WriteHeader(status int) {
	p.once.Do(func() {
		p.status, p.sent = status, p.header.Clone()
		close(p.begun)
	})
}

func (p *piped) Write(data []byte) (int, error) {
	p.WriteHeader(http.StatusOK)
	return p.out.Write(data)
}

// Flush implements [http.Flusher]: nothing is held back.
func (p *piped) Flush() { p.WriteHeader(http.StatusOK) }
