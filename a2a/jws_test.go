package a2a

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/agenticraft/node/identity"
)

// FuzzJWS: a header that is taken has exactly our members and values, an error has
// its code and names nobody, and nothing holds that the key did not sign.
func FuzzJWS(f *testing.F) {
	key, err := identity.Generate()
	if err != nil {
		f.Fatal(err)
	}
	payload := []byte(`{"a":1}`)
	own := map[string]jws{}
	for _, typ := range []string{typMessage, typToken, typCard} {
		if own[typ], err = signJWS(key, typ, payload); err != nil {
			f.Fatal(err)
		}
		f.Add(own[typ].Protected, own[typ].Signature, payload)
	}
	files, err := filepath.Glob(filepath.Join(vectorsDir, "*.json"))
	if err != nil || len(files) == 0 {
		f.Fatalf("%d vectors, %v", len(files), err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		var v struct{ Raw string }
		var carried struct {
			Message struct {
				Metadata map[string]struct{ Signatures []jws }
			}
		}
		if json.Unmarshal(raw, &v) != nil || json.Unmarshal([]byte(v.Raw), &carried) != nil {
			continue // a vector of another form
		}
		for _, s := range carried.Message.Metadata[SignedMessageURI].Signatures {
			f.Add(s.Protected, s.Signature, payload)
		}
	}
	f.Fuzz(func(t *testing.T, protected, signature string, payload []byte) {
		s := jws{protected, signature}
		for typ, ours := range own {
			id, did, err := s.issuer(typ)
			if err != nil {
				if e, ok := errors.AsType[*Error](err); !ok || e.Code != CodeSignatureInvalid || id != "" || did != "" {
					t.Fatalf("issuer = %q, %v", id, err)
				}
				continue
			}
			raw, err := b64.DecodeString(protected)
			if err != nil {
				t.Fatalf("taken, and no base64url: %q", protected)
			}
			var h map[string]string
			if err := json.Unmarshal(raw, &h); err != nil || len(h) != 3 || h["typ"] != typ || h["kid"] != id.KeyURL() || did != id.DID() || !slices.Contains(algorithms, h["alg"]) {
				t.Fatalf("taken: %s", raw)
			}
			if s.verify(key.ID(), payload) && s != ours {
				t.Fatalf("holds, and was never signed: %+v of %q", s, payload)
			}
		}
	})
}
