package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/a2aclient"
)

// parse gives a golden answer to the client's decoder.
func parse(ctx context.Context, s step) error {
	body, err := json.Marshal(s.ClientResponse.WirePayload)
	if err != nil {
		return err
	}
	var got any
	switch s.ClientResponse.Operation {
	case "get_agent_card", "get_extended_agent_card":
		card := new(sdk.AgentCard)
		err = json.Unmarshal(body, card)
		c := card.Capabilities
		got = map[string]any{"skills": card.Skills, "capabilities": map[string]any{
			"streaming": c.Streaming, "pushNotifications": c.PushNotifications, "extendedAgentCard": c.ExtendedAgentCard,
		}}
	default:
		got, err = parseAnswer(ctx, s.ClientResponse.Operation, body)
	}
	if err != nil {
		return err
	}
	plain, err := json.Marshal(got)
	if err != nil {
		return err
	}
	var v any
	if err := json.Unmarshal(plain, &v); err != nil {
		return err
	}
	return match(v, s.ExpectParsed, "parsed")
}

// parseAnswer lets the JSON-RPC transport, which our client signs in, read an
// answer.
func parseAnswer(ctx context.Context, operation string, body []byte) (any, error) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var call struct{ ID json.RawMessage }
		var answer map[string]json.RawMessage
		if err := errors.Join(json.NewDecoder(r.Body).Decode(&call), json.Unmarshal(body, &answer)); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		answer["id"] = call.ID
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer)
	}))
	defer server.Close()
	via := a2aclient.NewJSONRPCTransport(server.URL, server.Client())
	var got any
	var err error
	switch operation {
	case "send_message":
		var result sdk.SendMessageResult
		result, err = via.SendMessage(ctx, nil, &sdk.SendMessageRequest{Message: sdk.NewMessage(sdk.MessageRoleUser)})
		got = sdk.StreamResponse{Event: result}
	case "get_task":
		got, err = via.GetTask(ctx, nil, &sdk.GetTaskRequest{ID: "x"})
	default:
		return nil, fmt.Errorf("no operation %s", operation)
	}
	if errors.Is(err, sdk.ErrTaskNotFound) {
		return map[string]any{"error": map[string]any{"code": -32001, "message": err.Error()}}, nil
	}
	return got, err
}
