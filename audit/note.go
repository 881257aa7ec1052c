package audit

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/agenticraft/node/identity"
)

// Checkpoint is the size and root of a log at one moment, as C2SP
// tlog-checkpoint writes it.
type Checkpoint struct {
	Origin string `json:"origin"`
	Size   uint64 `json:"size"`
	Root   Hash   `json:"root"`
}

// cosigned is a checkpoint with the signatures of a quorum.
type cosigned struct {
	Checkpoint
	note []byte
}

const (
	// maxNote is the size limit of a cosigned checkpoint in bytes.
	maxNote = 64 << 10
	// cosignatureType is the signature type of cosignature/v1 (C2SP tlog-cosignature).
	cosignatureType = 0x04
)

// Body is the text that is signed: three lines.
func (c Checkpoint) Body() string {
	return fmt.Sprintf("%s\n%d\n%s\n", c.Origin, c.Size, c.Root)
}

// ParseCheckpoint reads the body of a checkpoint, without extension lines.
func ParseCheckpoint(body string) (Checkpoint, error) {
	lines := strings.Split(body, "\n")
	if len(body) > maxNote || len(lines) != 4 || lines[0] == "" || lines[3] != "" {
		return Checkpoint{}, fmt.Errorf("%w: not a checkpoint", ErrInvalid)
	}
	c := Checkpoint{Origin: lines[0]}
	size, err := strconv.ParseUint(lines[1], 10, 53)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%w: checkpoint size", ErrInvalid)
	}
	c.Size = size
	if err := c.Root.UnmarshalText([]byte(lines[2])); err != nil {
		return Checkpoint{}, fmt.Errorf("checkpoint root: %w", err)
	}
	if c.Body() != body {
		return Checkpoint{}, fmt.Errorf("%w: checkpoint is not in canonical form", ErrInvalid)
	}
	return c, nil
}

// VerifierKey is the public key of a cosigner as trust files name it (a C2SP
// vkey): its peer ID, its key id and the key.
func VerifierKey(id identity.ID) (string, error) {
	v, err := newVerifier(id)
	if err != nil {
		return "", err
	}
	key := append([]byte{cosignatureType}, v.public...)
	return fmt.Sprintf("%s+%08x+%s", v.name, v.hash, base64.StdEncoding.EncodeToString(key)), nil
}

// ParseVerifierKey reads a vkey whose name is the peer ID of its key.
func ParseVerifierKey(vkey string) (identity.ID, error) {
	name, _, _ := strings.Cut(vkey, "+")
	id, err := identity.ParseID(name)
	if err != nil {
		return "", fmt.Errorf("%w: key name: %w", ErrInvalid, err)
	}
	if again, err := VerifierKey(id); err != nil || again != vkey {
		return "", fmt.Errorf("%w: key of %s is not the one of its name", ErrInvalid, id)
	}
	return id, nil
}

// verifier checks the cosignatures of one keeper, for package note.
type verifier struct {
	name   string
	hash   uint32
	id     identity.ID
	public []byte
}

func newVerifier(id identity.ID) (*verifier, error) {
	public, err := id.PublicKey()
	if err != nil {
		return nil, err
	}
	in := append([]byte(id), '\n', cosignatureType)
	sum := sha256.Sum256(append(in, public...))
	return &verifier{name: string(id), hash: binary.BigEndian.Uint32(sum[:]), id: id, public: public}, nil
}

func (v *verifier) Name() string    { return v.name }
func (v *verifier) KeyHash() uint32 { return v.hash }

// Verify checks a timestamped signature over the body of a checkpoint.
func (v *verifier) Verify(body, sig []byte) bool {
	if len(sig) != 8+signature {
		return false
	}
	at := binary.BigEndian.Uint64(sig)
	return at <= maxNumber && v.id.VerifyRaw(cosignatureMessage(at, body), sig[8:])
}

func cosignatureMessage(at uint64, body []byte) []byte {
	return append([]byte("cosignature/v1\ntime "+strconv.FormatUint(at, 10)+"\n"), body...)
}

// signer makes cosignatures of one key, for package note.
type signer struct {
	*verifier
	key *identity.Key
	at  time.Time
}

func (s signer) Sign(body []byte) ([]byte, error) {
	at := uint64(s.at.Unix())
	return append(key64(at), s.key.SignRaw(cosignatureMessage(at, body))...), nil
}

// cosign signs c alone; the signatures of several keepers are then put
// together by mergeNotes.
func cosign(key *identity.Key, c Checkpoint, at time.Time) ([]byte, error) {
	v, err := newVerifier(key.ID())
	if err != nil {
		return nil, err
	}
	return note.Sign(&note.Note{Text: c.Body()}, signer{v, key, at})
}

// openNote verifies the signatures of ids on a checkpoint and says who signed,
// in the order of ids. Signatures of others are ignored, wrong ones are not.
func openNote(text []byte, ids []identity.ID) (Checkpoint, *note.Note, []identity.ID, error) {
	if len(text) > maxNote {
		return Checkpoint{}, nil, nil, fmt.Errorf("%w: checkpoint has %d bytes, limit %d", ErrInvalid, len(text), maxNote)
	}
	verifiers := make([]note.Verifier, 0, len(ids))
	for _, id := range ids {
		v, err := newVerifier(id)
		if err != nil {
			return Checkpoint{}, nil, nil, err
		}
		verifiers = append(verifiers, v)
	}
	n, err := note.Open(text, note.VerifierList(verifiers...))
	if unsigned, ok := errors.AsType[*note.UnverifiedNoteError](err); ok {
		n, err = unsigned.Note, nil
	}
	if err != nil {
		return Checkpoint{}, nil, nil, fmt.Errorf("%w: checkpoint: %w", ErrInvalid, err)
	}
	c, err := ParseCheckpoint(n.Text)
	if err != nil {
		return Checkpoint{}, nil, nil, err
	}
	signed := make(map[string]bool)
	for _, sig := range n.Sigs {
		signed[sig.Name] = true
	}
	var by []identity.ID
	for _, id := range ids {
		if signed[string(id)] {
			by = append(by, id)
		}
	}
	return c, n, by, nil
}

// mergeNotes puts the verified signatures of several notes with one text together.
func mergeNotes(notes []*note.Note) ([]byte, error) {
	all := &note.Note{Text: notes[0].Text}
	for _, n := range notes {
		all.Sigs = append(all.Sigs, n.Sigs...)
	}
	return note.Sign(all)
}

// exactNote reports whether text is spelt in the one way that package note
// itself writes, with no signature but the verified ones.
func exactNote(text []byte, n *note.Note) bool {
	again, err := note.Sign(&note.Note{Text: n.Text, Sigs: n.Sigs})
	if err != nil || string(again) != string(text) {
		return false
	}
	for _, sig := range n.Sigs {
		if _, err := strict64.DecodeString(sig.Base64); err != nil {
			return false
		}
	}
	return true
}
