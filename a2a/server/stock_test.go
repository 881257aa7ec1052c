package server_test

import (
	"context"

	"github.com/a2aproject/a2a-go/v2/a2aclient"
)

// bearer is an interceptor of the official client that sends a credential.
type bearer struct {
	a2aclient.PassthroughInterceptor
	token string
}

func (b bearer) Before(ctx context.Context, req *a2aclient.Request) (context.Context, any, error) {
	req.ServiceParams.Append("Authorization", "Bearer "+b.token)
	return ctx, nil, nil
}
