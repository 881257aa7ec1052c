package client

import (
	"context"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
)

// CreatePush has the server tell cfg.URL what becomes of cfg.TaskID. The answer
// has the configuration's id, and need not have its secrets.
func (c *Client) CreatePush(ctx context.Context, cfg *sdk.PushConfig) (*sdk.PushConfig, error) {
	token, err := c.token()
	if err != nil {
		return nil, err
	}
	out, err := c.transport.CreateTaskPushConfig(ctx, c.params(nil, token), cfg)
	return out, wire(err)
}

// GetPush reads a push configuration.
func (c *Client) GetPush(ctx context.Context, task, id string) (*sdk.PushConfig, error) {
	token, err := c.token()
	if err != nil {
		return nil, err
	}
	out, err := c.transport.GetTaskPushConfig(ctx, c.params(nil, token), &sdk.GetTaskPushConfigRequest{TaskID: sdk.TaskID(task), ID: id})
	return out, wire(err)
}

// ListPushes lists the push configurations of a task.
func (c *Client) ListPushes(ctx context.Context, task string) ([]*sdk.PushConfig, error) {
	token, err := c.token()
	if err != nil {
		return nil, err
	}
	out, err := c.transport.ListTaskPushConfigs(ctx, c.params(nil, token), &sdk.ListTaskPushConfigRequest{TaskID: sdk.TaskID(task)})
	return out, wire(err)
}

// DeletePush removes a push configuration. One that is not there is no error.
func (c *Client) DeletePush(ctx context.Context, task, id string) error {
	token, err := c.token()
	if err != nil {
		return err
	}
	return wire(c.transport.DeleteTaskPushConfig(ctx, c.params(nil, token), &sdk.DeleteTaskPushConfigRequest{TaskID: sdk.TaskID(task), ID: id}))
}
