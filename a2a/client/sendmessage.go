package client

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/a2aclient"

	"github.com/agenticraft/node/a2a"
)

// sendMessage is what the SDK's transport does with a SendMessage: the same request,
// and the same answer, for half of the processor time. What is no plain task, such
// as an error, the SDK's transport reads.
func (c *Client) sendMessage(ctx context.Context, params a2aclient.ServiceParams, req *sdk.SendMessageRequest) (sdk.SendMessageResult, error) {
	raw, err := a2a.MarshalRequest(req)
	if err != nil { // such as a number that cannot be signed, in a request that is not
		return c.transport.SendMessage(ctx, params, req)
	}
	body := append([]byte(`{"jsonrpc":"2.0","id":"`), strconv.FormatUint(c.calls.Add(1), 10)...)
	body = append(append(append(body, `","method":"SendMessage","params":`...), raw...), '}')
	call, err := http.NewRequestWithContext(ctx, http.MethodPost, c.cfg.URL, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("send message: %w", err)
	}
	call.Header.Set("Content-Type", "application/json")
	for name, values := range params {
		for _, v := range values {
			call.Header.Add(name, v)
		}
	}
	resp, err := c.http.Do(call)
	if err != nil {
		return nil, fmt.Errorf("send message: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body) // its transport has a cap
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	if task, ok := a2a.ReadTaskReply(answer); ok {
		return task, nil
	}
	return a2aclient.NewJSONRPCTransport(c.cfg.URL, &http.Client{Transport: answered(answer)}).SendMessage(ctx, params, req)
}

// answered gives an answer that came.
type answered []byte

func (a answered) RoundTrip(req *http.Request) (*http.Response, error) {
	return &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(a)), ContentLength: int64(len(a)), Request: req,
	}, nil
}
