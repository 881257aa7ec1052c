package a2a

import sdk "github.com/a2aproject/a2a-go/v2/a2a"

// CardAudience is whom requests to the card's node are signed for: the
// audience that its signed-message extension names.
func CardAudience(card *sdk.AgentCard) (string, error) {
	for _, ext := range card.Capabilities.Extensions {
		if ext.URI != SignedMessageURI {
			continue
		}
		if audience, ok := ext.Params["audience"].(string); ok && audience != "" {
			return audience, nil
		}
	}
	return "", Errorf(CodeUnsupported, "the node's card names no audience for signed requests")
}
