package main

import (
	"fmt"
	"math"
	"math/big"
	"strings"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

type builtin = func(*starlark.Thread, *starlark.Builtin, starlark.Tuple, []starlark.Tuple) (starlark.Value, error)

// builtins are functions of Python that Starlark lacks and programs use often.
var builtins = map[string]builtin{
	"exit":  exitProgram,
	"quit":  exitProgram,
	"sum":   sum,
	"pow":   pow,
	"round": round,
}

// exitRequest ends the program as exit() asks.
type exitRequest struct {
	code int
	text string
}

func (e *exitRequest) Error() string { return fmt.Sprintf("exit(%d)", e.code) }

// exitProgram is exit(code=0): a number ends the program with it, a text is
// printed to standard error and ends it with 1.
func exitProgram(_ *starlark.Thread, fn *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var code starlark.Value = starlark.None
	if err := starlark.UnpackPositionalArgs(fn.Name(), args, kwargs, 0, &code); err != nil {
		return nil, err
	}
	switch code := code.(type) {
	case starlark.NoneType:
		return nil, &exitRequest{}
	case starlark.Bool:
		if code {
			return nil, &exitRequest{code: 1}
		}
		return nil, &exitRequest{}
	case starlark.Int:
		if _, ok := code.Int64(); !ok {
			return nil, &exitRequest{code: 0xff} // no system's number: Python takes it for -1
		}
		low := new(big.Int).And(code.BigInt(), big.NewInt(0xff)) // as the system sees it
		return nil, &exitRequest{code: int(low.Int64())}
	case starlark.String:
		return nil, &exitRequest{code: 1, text: cut(string(code), maxTrace-1) + "\n"}
	}
	return nil, fmt.Errorf("exit: code is %s, want int or string", code.Type())
}

// printer is Python's print with sep and end.
func printer(printed func(string)) builtin {
	return func(_ *starlark.Thread, fn *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		sep, end, flush := " ", "\n", false
		if err := starlark.UnpackArgs(fn.Name(), nil, kwargs, "sep?", &sep, "end?", &end, "flush?", &flush); err != nil {
			return nil, err
		}
		var line strings.Builder
		for i, arg := range args {
			if i > 0 {
				line.WriteString(sep)
			}
			switch arg := arg.(type) {
			case starlark.String:
				line.WriteString(string(arg))
			case starlark.Bytes:
				line.WriteString(string(arg))
			default:
				line.WriteString(arg.String())
			}
		}
		line.WriteString(end)
		printed(line.String())
		return starlark.None, nil
	}
}

// sum is sum(iterable, start=0).
func sum(_ *starlark.Thread, fn *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var items starlark.Iterable
	var total starlark.Value = starlark.MakeInt(0)
	if err := starlark.UnpackArgs(fn.Name(), args, kwargs, "iterable", &items, "start?", &total); err != nil {
		return nil, err
	}
	if total.Type() == "string" {
		return nil, fmt.Errorf("sum: cannot add strings; use \"\".join(...)")
	}
	iter := items.Iterate()
	defer iter.Done()
	for x := starlark.Value(nil); iter.Next(&x); {
		next, err := starlark.Binary(syntax.PLUS, total, x)
		if err != nil {
			return nil, fmt.Errorf("sum: %w", err)
		}
		total = next
	}
	return total, nil
}

// pow is pow(base, exponent, modulus=None), for there is no ** operator.
func pow(_ *starlark.Thread, fn *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var base, exponent starlark.Value
	var modulus starlark.Value = starlark.None
	if err := starlark.UnpackPositionalArgs(fn.Name(), args, kwargs, 2, &base, &exponent, &modulus); err != nil {
		return nil, err
	}
	b, bInt := base.(starlark.Int)
	e, eInt := exponent.(starlark.Int)
	if bInt && eInt && (e.Sign() >= 0) {
		var m *big.Int
		if modulus != starlark.None {
			mod, isInt := modulus.(starlark.Int)
			if !isInt || mod.Sign() == 0 {
				return nil, fmt.Errorf("pow: modulus must be an int other than 0")
			}
			m = mod.BigInt()
			r := new(big.Int).Exp(b.BigInt(), e.BigInt(), new(big.Int).Abs(m))
			if m.Sign() < 0 && r.Sign() > 0 {
				r.Add(r, m) // the sign of the modulus, as in Python
			}
			return starlark.MakeBigInt(r), nil
		}
		return starlark.MakeBigInt(new(big.Int).Exp(b.BigInt(), e.BigInt(), nil)), nil
	}
	if modulus != starlark.None {
		return nil, fmt.Errorf("pow: a modulus needs an int base and an int exponent of at least 0")
	}
	x, okX := starlark.AsFloat(base)
	y, okY := starlark.AsFloat(exponent)
	if !okX || !okY {
		return nil, fmt.Errorf("pow: want numbers, got %s and %s", base.Type(), exponent.Type())
	}
	if x == 0 && y < 0 {
		return nil, fmt.Errorf("pow: zero to a negative power")
	}
	return starlark.Float(math.Pow(x, y)), nil
}

// round is round(number, digits=None): to even at half, an int without digits.
func round(_ *starlark.Thread, fn *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var number starlark.Value
	var digits starlark.Value = starlark.None
	if err := starlark.UnpackArgs(fn.Name(), args, kwargs, "number", &number, "digits?", &digits); err != nil {
		return nil, err
	}
	n := 0
	if digits != starlark.None {
		if err := starlark.AsInt(digits, &n); err != nil || n < -300 || n > 300 {
			return nil, fmt.Errorf("round: digits must be an int from -300 to 300")
		}
	}
	switch x := number.(type) {
	case starlark.Int:
		if n >= 0 {
			return x, nil
		}
		return nil, fmt.Errorf("round: negative digits work with floats only")
	case starlark.Float:
		if digits == starlark.None {
			rounded, err := starlark.NumberToInt(starlark.Float(math.RoundToEven(float64(x))))
			if err != nil {
				return nil, fmt.Errorf("round: %w", err)
			}
			return rounded, nil
		}
		scale := math.Pow10(n)
		if r := math.RoundToEven(float64(x)*scale) / scale; !math.IsNaN(r) && !math.IsInf(r, 0) {
			return starlark.Float(r), nil
		}
		return x, nil
	}
	return nil, fmt.Errorf("round: want a number, got %s", number.Type())
}
