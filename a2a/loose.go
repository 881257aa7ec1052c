package a2a

import "encoding/json"

// looseJSON turns v into what encoding/json would read it as.
func looseJSON(v any) (any, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return looseOf(raw)
}

// looseOf is what encoding/json reads of raw into an any (FuzzLooseOf holds it to
// that).
func looseOf(raw []byte) (any, error) {
	if v, ok := parsePlain(raw); ok {
		var r plainReader
		if out := r.loose(v, 0); !r.odd {
			return out, nil
		}
	}
	var out any
	if err := json.Unmarshal(raw, &out); err != nil {
		return nil, err
	}
	return out, nil
}
