package identity

import (
	"sync"

	"filippo.io/edwards25519"
	"filippo.io/edwards25519/field"
)

// extended is a point (X/Z, Y/Z) of edwards25519, with T = XY/Z. Its formulas are
// complete: they have no exceptions, and need no test for equal points or for the
// neutral one (Hisil and others, "Twisted Edwards Curves Revisited", 3.1 and 3.3).
type extended struct{ x, y, z, t field.Element }

// affine is a point (x, y) as it is added fastest.
type affine struct {
	sum, difference field.Element // y+x, y-x
	product         field.Element // 2dxy
}

func identityPoint() (p extended) {
	p.y.One()
	p.z.One()
	return p
}

func (p *extended) add(q *affine) {
	var a, b, c, d, e, f, g, h field.Element
	a.Subtract(&p.y, &p.x)
	a.Multiply(&a, &q.difference)
	b.Add(&p.y, &p.x)
	b.Multiply(&b, &q.sum)
	c.Multiply(&p.t, &q.product)
	d.Add(&p.z, &p.z)
	e.Subtract(&b, &a)
	f.Subtract(&d, &c)
	g.Add(&d, &c)
	h.Add(&b, &a)
	p.set(&e, &f, &g, &h)
}

// subtract adds -q, which is q with its sum and difference exchanged and the
// negative of its product.
func (p *extended) subtract(q *affine) {
	var a, b, c, d, e, f, g, h field.Element
	a.Subtract(&p.y, &p.x)
	a.Multiply(&a, &q.sum)
	b.Add(&p.y, &p.x)
	b.Multiply(&b, &q.difference)
	c.Multiply(&p.t, &q.product)
	d.Add(&p.z, &p.z)
	e.Subtract(&b, &a)
	f.Add(&d, &c)
	g.Subtract(&d, &c)
	h.Add(&b, &a)
	p.set(&e, &f, &g, &h)
}

func (p *extended) double() {
	var a, b, c, e, f, g, h field.Element
	a.Square(&p.x)
	b.Square(&p.y)
	c.Square(&p.z)
	c.Add(&c, &c)
	e.Add(&p.x, &p.y)
	e.Square(&e)
	h.Add(&a, &b)
	e.Subtract(&e, &h)
	g.Subtract(&b, &a)
	f.Subtract(&g, &c)
	h.Negate(&h)
	p.set(&e, &f, &g, &h)
}

// set is the last step that all formulas share.
func (p *extended) set(e, f, g, h *field.Element) {
	p.x.Multiply(e, f)
	p.y.Multiply(g, h)
	p.t.Multiply(e, h)
	p.z.Multiply(f, g)
}

// encoded is the one encoding of the point: y, and the sign of x in its last bit.
func (p *extended) encoded() []byte {
	var inverse, x, y field.Element
	inverse.Invert(&p.z)
	x.Multiply(&p.x, &inverse)
	y.Multiply(&p.y, &inverse)
	out := y.Bytes()
	out[31] |= byte(x.IsNegative() << 7)
	return out
}

// normalized are the points with Z = 1, by one inversion for all of them
// (Montgomery's trick).
func normalized(points []edwards25519.Point) []affine {
	out := make([]affine, len(points))
	before := make([]field.Element, len(points)) // product of Z of all points before
	product := new(field.Element).One()
	for i := range points {
		_, _, z, _ := points[i].ExtendedCoordinates()
		before[i].Set(product)
		product.Multiply(product, z)
	}
	inverse := product.Invert(product) // of the product of Z up to point i
	var own, x, y field.Element
	for i := len(points) - 1; i >= 0; i-- {
		px, py, pz, _ := points[i].ExtendedCoordinates()
		own.Multiply(inverse, &before[i])
		inverse.Multiply(inverse, pz)
		x.Multiply(px, &own)
		y.Multiply(py, &own)
		out[i].sum.Add(&y, &x)
		out[i].difference.Subtract(&y, &x)
		out[i].product.Multiply(&x, &y)
		out[i].product.Multiply(&out[i].product, twiceD())
	}
	return out
}

// twiceD is 2d of the curve -x²+y² = 1+dx²y², for which d is -121665/121666.
var twiceD = sync.OnceValue(func() *field.Element {
	one, d := new(field.Element).One(), new(field.Element)
	d.Invert(d.Mult32(one, 121666))
	d.Negate(d.Mult32(d, 121665))
	return d.Add(d, d)
})
