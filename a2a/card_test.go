package a2a_test

import (
	"bytes"
	"encoding/json"
	"testing"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/identity"
)

func newCard(t testing.TB) (*identity.Key, []byte) {
	t.Helper()
	key := newKey(t)
	raw, err := a2a.Card(a2a.CardConfig{
		Key: key, Name: "node", Version: "0.1.0", Cluster: cluster,
		Interfaces: []a2a.CardInterface{{URL: "http://127.0.0.1:8420/a2a"}, {URL: "/p2p/" + string(key.ID()), Binding: "https://agenticraft.dev/a2a/bindings/libp2p/v1"}},
		Languages:  []string{"python", "starlark"}, Sandboxes: []string{"process", "restricted"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return key, raw
}

func TestCardIsSignedAndReadable(t *testing.T) {
	key, raw := newCard(t)
	card, signer, err := a2a.VerifyCard(raw)
	if err != nil {
		t.Fatal(err)
	}
	if signer != key.ID() || card.Name != "node" || !card.Capabilities.Streaming || len(card.SupportedInterfaces) != 2 || len(card.Skills) != 1 {
		t.Errorf("card = %+v by %s", card, signer)
	}
	var bySDK sdk.AgentCard
	if err := json.Unmarshal(raw, &bySDK); err != nil || bySDK.SupportedInterfaces[0].ProtocolBinding != sdk.TransportProtocolJSONRPC {
		t.Errorf("the SDK cannot read the card: %v", err)
	}
	for _, e := range card.Capabilities.Extensions {
		if e.URI == a2a.ExecutionURI && e.Params["schema"] == nil {
			t.Error("the card does not publish the schema")
		}
	}
}

func TestCardHasNoEmptyValues(t *testing.T) {
	_, raw := newCard(t)
	var card any
	if err := json.Unmarshal(raw, &card); err != nil {
		t.Fatal(err)
	}
	noneEmpty(t, "", card)
}

func noneEmpty(t *testing.T, path string, v any) {
	t.Helper()
	switch v := v.(type) {
	case nil:
		t.Errorf("%s is null", path)
	case string:
		if v == "" {
			t.Errorf("%s is empty", path)
		}
	case []any:
		if len(v) == 0 {
			t.Errorf("%s is empty", path)
		}
		for _, item := range v {
			noneEmpty(t, path+"[]", item)
		}
	case map[string]any:
		if len(v) == 0 {
			t.Errorf("%s is empty", path)
		}
		for name, item := range v {
			noneEmpty(t, path+"."+name, item)
		}
	}
}

func TestVerifyCardRefuses(t *testing.T) {
	_, raw := newCard(t)
	_, _, err := a2a.VerifyCard(bytes.Replace(raw, []byte(`"version":"0.1.0"`), []byte(`"version":"0.1.1"`), 1))
	wantCode(t, err, a2a.CodeSignatureInvalid)
	_, _, err = a2a.VerifyCard(bytes.Replace(raw, []byte(`{"capabilities"`), []byte(`{"iconUrl":"https://evil.example","capabilities"`), 1))
	wantCode(t, err, a2a.CodeSignatureInvalid)
	_, _, err = a2a.VerifyCard(bytes.Replace(raw, []byte(`"name":"node"`), []byte(`"name":"node","name":"evil"`), 1))
	wantCode(t, err, a2a.CodeInvalidRequest)
	_, _, err = a2a.VerifyCard([]byte(`{"name":"x"}`))
	wantCode(t, err, a2a.CodeSignatureMissing)
	_, _, err = a2a.VerifyCard(bytes.Repeat([]byte(" "), a2a.MaxCardBytes+1))
	wantCode(t, err, a2a.CodeTooLarge)
	if _, err := a2a.Card(a2a.CardConfig{}); err == nil {
		t.Error("a card of nothing was made")
	}
}

func FuzzVerifyCard(f *testing.F) {
	_, raw := newCard(f)
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		card, signer, err := a2a.VerifyCard(raw)
		if (err == nil) != (card != nil) || (err == nil) != (signer != "") {
			t.Fatalf("VerifyCard = %v, %q, %v", card, signer, err)
		}
	})
}
