package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha512"
	"sync"

	"filippo.io/edwards25519"
)

// multiples holds small multiples of one point, of which its product with any
// scalar is a sum. A scalar has a digit from -2^(width-1) to 2^(width-1)-1 for
// every width bits; row i holds 1 to 2^(width-1) times the point, times the weight
// of digit every*i. What the digits between them weigh more is made by doubling.
type multiples struct {
	width, every int
	rows         [][]affine
}

const (
	scalarBits = 253 // of a reduced scalar
	maxDigits  = 64  // of 4 bits each, the narrowest of our tables, with one bit for the last carry
)

// baseMultiples is the table of the base point: one in the process, of 160 KiB.
var baseMultiples = sync.OnceValue(func() *multiples {
	return newMultiples(edwards25519.NewGeneratorPoint(), 6, 1)
})

// newTable is the table of -A for a public key A, or nil if public encodes no
// point: no signature of such a key holds. It has 30 KiB, and is made in the time
// of two or three verifications.
func newTable(public []byte) *multiples {
	a, err := new(edwards25519.Point).SetBytes(public)
	if err != nil {
		return nil
	}
	return newMultiples(a.Negate(a), 4, 2)
}

// verifyByTable is [ed25519.Verify] with the table of -A, the negative of the
// public key: the same bytes hold and the same do not. As there, s must be
// reduced, sB - kA must encode as exactly the R of the signature, and nothing is
// multiplied by the cofactor (RFC 8032, 5.1.7). Times depend on the input, all of
// which is public.
func verifyByTable(minusA *multiples, public, msg, sig []byte) bool {
	if len(sig) != ed25519.SignatureSize {
		return false
	}
	s, err := new(edwards25519.Scalar).SetCanonicalBytes(sig[32:])
	if err != nil {
		return false
	}
	hash := sha512.New()
	hash.Write(sig[:32])
	hash.Write(public)
	hash.Write(msg)
	k, err := new(edwards25519.Scalar).SetUniformBytes(hash.Sum(make([]byte, 0, sha512.Size)))
	if err != nil {
		panic("internal error: a SHA-512 sum is no uniform scalar: " + err.Error()) // it has 64 bytes
	}
	sum := identityPoint()
	minusA.addTimes(&sum, k)
	baseMultiples().addTimes(&sum, s) // last, for its digits are all in the table
	return bytes.Equal(sum.encoded(), sig[:32])
}

// newMultiples makes the table of a point with a row for each digit that is a
// multiple of every.
func newMultiples(p *edwards25519.Point, width, every int) *multiples {
	digits, size := scalarBits/width+1, 1<<(width-1)
	n := (digits + every - 1) / every
	points := make([]edwards25519.Point, n*size)
	first := new(edwards25519.Point).Set(p)
	for at := 0; at < len(points); at += size {
		row := points[at : at+size]
		row[0].Set(first)
		for i := 1; i < size; i++ {
			row[i].Add(&row[i-1], first)
		}
		first.Set(&row[size-1])
		for range (every-1)*width + 1 {
			first.Double(first)
		}
	}
	m := &multiples{width: width, every: every, rows: make([][]affine, n)}
	all := normalized(points)
	for i := range m.rows {
		m.rows[i] = all[i*size : (i+1)*size]
	}
	return m
}

// addTimes adds the product of the scalar and the table's point. What is in sum
// before is doubled, too, where rows are not there for every digit.
func (m *multiples) addTimes(sum *extended, s *edwards25519.Scalar) {
	digits := m.digits(s)
	for phase := m.every - 1; phase >= 0; phase-- {
		for i, row := range m.rows {
			switch digit := digits[i*m.every+phase]; {
			case digit > 0:
				sum.add(&row[digit-1])
			case digit < 0:
				sum.subtract(&row[-digit-1])
			}
		}
		for range m.width * min(phase, 1) {
			sum.double()
		}
	}
}

// digits are those of the scalar, the least first.
func (m *multiples) digits(s *edwards25519.Scalar) (out [maxDigits]int) {
	text, carry := s.Bytes(), 0
	for i := range scalarBits/m.width + 1 {
		digit := carry + window(text, uint(i*m.width), uint(m.width))
		if carry = 0; digit >= 1<<(m.width-1) {
			digit, carry = digit-1<<m.width, 1
		}
		out[i] = digit
	}
	return out
}

// window are width bits, at most 8, of a little-endian number.
func window(number []byte, from, width uint) int {
	two := uint(number[from/8])
	if next := from/8 + 1; next < uint(len(number)) {
		two |= uint(number[next]) << 8
	}
	return int(two >> (from % 8) & (1<<width - 1))
}
