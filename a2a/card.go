package a2a

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/a2apb/v1"
	"github.com/a2aproject/a2a-go/v2/a2apb/v1/pbconv"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/agenticraft/node/identity"
)

// CardPath is where a node serves its card.
const CardPath = "/.well-known/agent-card.json"

// SkillID is the one skill of a node: to run a program.
const SkillID = "run-code"

const maxSignatures = 8 // of a card

// MaxCardBytes is the largest card that is read.
const MaxCardBytes = 256 << 10

// CardConfig says what a node's card tells the world. All fields are required
// unless a comment says otherwise.
type CardConfig struct {
	Key         *identity.Key   // signs the card; names the node
	Name        string          // for people
	Description string          // optional
	Version     string          // of the software
	Cluster     string          // whose requests are signed for [Audience] of it
	Interfaces  []CardInterface // in order of preference
	Languages   []string        // really offered, sorted
	Sandboxes   []string        // really offered, sorted
	Offers      []Offer         // the same with all that is known of it; optional
	Also        []*identity.Key // sign the card, too; optional
	Extended    bool            // callers get a card of their own from GetExtendedAgentCard
	Push        bool            // push notifications are offered
	SignedOnly  bool            // the signed-message extension is required
}

// Offer is one language in one sandbox, as the node really has it.
type Offer struct {
	Language string   `json:"language"`
	Sandbox  string   `json:"sandbox"`
	Tier     string   `json:"tier,omitempty"`     // how strong the jail is
	Runtime  string   `json:"runtime,omitempty"`  // digest of the language tree
	Enforces []string `json:"enforces,omitempty"` // limits that can be required, sorted
}

// CardInterface is one way to reach the node.
type CardInterface struct {
	URL     string // absolute, or "/p2p/<peer ID>" for the mesh
	Binding string // default "JSONRPC"; a URI for a custom binding
}

// Card makes the bytes that a node serves at [CardPath]: canonical JSON, with a
// signature (JWS, kid = did:key) over all of it but the signatures, and one more by
// each of Also: while keys change, readers who know the old and readers who know the
// new one can verify it. Every value
// in it is non-empty and no member has its proto's default, because the
// canonical form drops those (8.4.1) and implementations differ in how; for the same reason, and since the Go SDK cannot decode
// securityRequirements as the specification writes them, the card declares
// securitySchemes and leaves the requirement to policy.
func Card(cfg CardConfig) ([]byte, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("agent card: %w", err)
	}
	card, err := cfg.document()
	if err != nil {
		return nil, fmt.Errorf("agent card: %w", err)
	}
	payload, err := canonicalValue(card)
	if err != nil {
		return nil, fmt.Errorf("agent card: %w", err)
	}
	var signatures []jws
	for _, key := range append([]*identity.Key{cfg.Key}, cfg.Also...) {
		signature, err := signJWS(key, typCard, payload)
		if err != nil {
			return nil, fmt.Errorf("sign agent card: %w", err)
		}
		signatures = append(signatures, signature)
	}
	card["signatures"] = signatures
	return canonicalValue(card)
}

// KeysPath is where a node serves the keys that sign its card.
const KeysPath = "/.well-known/jwks.json"

// JWKS is a JSON Web Key Set (RFC 7517) of Ed25519 keys, each with the kid that
// signatures name.
func JWKS(ids ...identity.ID) ([]byte, error) {
	type jwk struct {
		Kty string `json:"kty"`
		Crv string `json:"crv"`
		Alg string `json:"alg"`
		Use string `json:"use"`
		Kid string `json:"kid"`
		X   string `json:"x"`
	}
	keys := make([]jwk, 0, len(ids))
	for _, id := range ids {
		public, err := id.PublicKey()
		if err != nil {
			return nil, fmt.Errorf("key set: %w", err)
		}
		keys = append(keys, jwk{"OKP", "Ed25519", algorithms[0], "sig", id.KeyURL(), b64.EncodeToString(public)})
	}
	return canonicalValue(map[string]any{"keys": keys})
}

// VerifyCard reads a card from outside and says who signed it. The caller
// compares the signer with whom he meant to reach. An error is an [*Error].
func VerifyCard(raw []byte) (*sdk.AgentCard, identity.ID, error) {
	return verifyCard(raw, "")
}

// VerifyCardBy reads a card that signer must have signed, among others perhaps:
// a card may bear several signatures, of an old and of a new key, or of those
// who answer for the node.
func VerifyCardBy(raw []byte, signer identity.ID) (*sdk.AgentCard, error) {
	card, _, err := verifyCard(raw, signer)
	return card, err
}

func verifyCard(raw []byte, by identity.ID) (*sdk.AgentCard, identity.ID, error) {
	if len(raw) > MaxCardBytes {
		return nil, "", Errorf(CodeTooLarge, "agent card has more than %d bytes", MaxCardBytes)
	}
	canonical, err := canonicalJSON(raw) // refuses duplicate members
	if err != nil {
		return nil, "", err
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(canonical, &members); err != nil {
		return nil, "", Errorf(CodeInvalidRequest, "agent card is not an object")
	}
	signer, err := verifyCardSignature(members, by)
	if err != nil {
		return nil, "", err
	}
	var p a2apb.AgentCard
	options := protojson.UnmarshalOptions{DiscardUnknown: true, RecursionLimit: maxNesting}
	if err := options.Unmarshal(canonical, &p); err != nil {
		return nil, "", Errorf(CodeInvalidRequest, "agent card: %s", Clip(err.Error()))
	}
	card, err := pbconv.FromProtoAgentCard(&p)
	if err != nil {
		return nil, "", Errorf(CodeInvalidRequest, "agent card: %s", Clip(err.Error()))
	}
	return card, signer, nil
}

// verifyCardSignature finds the first signature that holds, of by if that is
// not "".
func verifyCardSignature(members map[string]json.RawMessage, by identity.ID) (identity.ID, error) {
	text, ok := members["signatures"]
	if !ok {
		return "", Errorf(CodeSignatureMissing, "agent card is not signed")
	}
	var signatures []struct {
		jws
		Header map[string]any `json:"header"` // unprotected: ignored
	}
	if err := json.Unmarshal(text, &signatures); err != nil || len(signatures) == 0 || len(signatures) > maxSignatures {
		return "", Errorf(CodeSignatureInvalid, "agent card has no readable signatures")
	}
	delete(members, "signatures")
	payload, err := canonicalValue(members)
	if err != nil {
		return "", err
	}
	var last error
	for _, s := range signatures {
		signer, did, err := s.issuer(typCard)
		if err != nil {
			last = err // of a kind that we do not know; another may be
			continue
		}
		if by != "" && signer != by {
			last = Errorf(CodeSignatureInvalid, "%s signed the agent card, not %s", did, by.DID())
			continue
		}
		if s.verify(signer, payload) {
			return signer, nil
		}
		last = Errorf(CodeSignatureInvalid, "the signature does not cover this agent card")
	}
	return "", last
}

func (cfg CardConfig) check() error {
	var faults []error
	if len(cfg.Also) >= maxSignatures {
		faults = append(faults, fmt.Errorf("more than %d keys sign", maxSignatures))
	}
	for name, empty := range map[string]bool{
		"Key": cfg.Key == nil, "Name": cfg.Name == "", "Version": cfg.Version == "", "Cluster": cfg.Cluster == "",
		"Interfaces": len(cfg.Interfaces) == 0, "Languages": len(cfg.Languages) == 0, "Sandboxes": len(cfg.Sandboxes) == 0,
	} {
		if empty {
			faults = append(faults, fmt.Errorf("%s is missing", name))
		}
	}
	for _, i := range cfg.Interfaces {
		if i.URL == "" {
			faults = append(faults, errors.New("an interface has no URL"))
		}
	}
	return errors.Join(faults...)
}

func (cfg CardConfig) document() (map[string]any, error) {
	var schema map[string]any
	if err := json.Unmarshal([]byte(executionSchema), &schema); err != nil {
		return nil, err
	}
	description := cfg.Description
	if description == "" {
		description = "Runs programs in a local sandbox after policy allowed it, and keeps tamper-evident proof."
	}
	interfaces := make([]map[string]any, 0, len(cfg.Interfaces))
	for _, i := range cfg.Interfaces {
		binding := i.Binding
		if binding == "" {
			binding = string(sdk.TransportProtocolJSONRPC)
		}
		interfaces = append(interfaces, map[string]any{"url": i.URL, "protocolBinding": binding, "protocolVersion": Version})
	}
	return map[string]any{
		"name":                cfg.Name,
		"description":         description,
		"version":             cfg.Version,
		"supportedInterfaces": interfaces,
		"defaultInputModes":   inputModes,
		"defaultOutputModes":  outputModes,
		"capabilities": map[string]any{
			"streaming":         true,
			"pushNotifications": cfg.Push,
			"extendedAgentCard": cfg.Extended,
			"extensions":        cfg.extensions(schema),
		},
		"securitySchemes": map[string]any{
			"bearer": map[string]any{"httpAuthSecurityScheme": map[string]any{
				"scheme":      "Bearer",
				"description": "An API key (ac_…), or a token signed with the caller's own Ed25519 key. A request signed by the extension " + SignedMessageURI + " needs neither.",
			}},
		},
		"skills": cfg.skills(),
	}, nil
}

// skills are to run any program, and to run one of each language.
func (cfg CardConfig) skills() []map[string]any {
	out := []map[string]any{{
		"id":          SkillID,
		"name":        "Run code",
		"description": "Send one data part {language, code, …} as the schema in the parameters of the extension " + ExecutionURI + " describes, or a text with one fenced code block.",
		"tags":        append([]string{"code", "sandbox"}, cfg.Languages...),
		"examples":    []string{`{"language":"` + cfg.Languages[0] + `","code":"result = 6 * 7"}`},
	}}
	for _, language := range cfg.Languages {
		var where []string
		for _, o := range cfg.Offers {
			if o.Language == language && o.Tier != "" {
				where = append(where, o.Sandbox+" (tier "+o.Tier+")")
			} else if o.Language == language {
				where = append(where, o.Sandbox)
			}
		}
		if len(where) == 0 {
			continue
		}
		out = append(out, map[string]any{
			"id":          LanguageSkill(language),
			"name":        "Run " + language,
			"description": "Runs " + language + " in: " + strings.Join(where, ", ") + ".",
			"tags":        []string{"code", "sandbox", language},
			"examples":    []string{"```" + language + "\n…\n```"},
		})
	}
	return out
}

// LanguageSkill is the skill to run programs of one language.
func LanguageSkill(language string) string { return "run-" + language }

// narrowed is the schema of an execution with the languages and sandboxes that
// there are.
func (cfg CardConfig) narrowed(schema map[string]any) map[string]any {
	properties, ok := schema["properties"].(map[string]any)
	if !ok {
		return schema
	}
	for name, values := range map[string][]string{"language": cfg.Languages, "sandbox": append([]string{"auto"}, cfg.Sandboxes...)} {
		if of, ok := properties[name].(map[string]any); ok {
			delete(of, "pattern")
			of["enum"] = values
		}
	}
	return schema
}

func (cfg CardConfig) extensions(schema map[string]any) []map[string]any {
	signed := map[string]any{
		"uri":         SignedMessageURI,
		"description": "Requests signed by the agent's own key: a detached JWS over the canonical request.",
		"params": map[string]any{
			"algs":           algorithms,
			"didMethods":     []string{"did:key"},
			"audience":       Audience(cfg.Cluster),
			"node":           cfg.Key.ID().DID(),
			"maxTtlSeconds":  int(maxTTL.Seconds()),
			"maxSkewSeconds": int(defaultSkew.Seconds()),
			"appliesTo":      []string{OpSendMessage, "SendStreamingMessage"},
		},
	}
	if cfg.SignedOnly { // false is its proto's default, which the canonical form drops
		signed["required"] = true
	}
	return []map[string]any{
		signed,
		{
			"uri":         ExecutionURI,
			"description": "What this node runs, and the JSON Schema of the data part that asks for it.",
			"params":      cfg.offered(schema),
		},
	}
}

func (cfg CardConfig) offered(schema map[string]any) map[string]any {
	params := map[string]any{"schema": cfg.narrowed(schema), "languages": cfg.Languages, "sandboxes": cfg.Sandboxes}
	if len(cfg.Offers) > 0 {
		params["offers"] = cfg.Offers
	}
	return params
}

func canonicalValue(v any) ([]byte, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return canonicalJSON(raw)
}
