package main

import (
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// missing is a value that is not there.
type missing struct{}

// match holds a value against an ACTS matcher: a scalar, an object of
// operators, or an object of the members that the value must have.
func match(got, want any, at string) error {
	object, ok := want.(map[string]any)
	if !ok {
		if list, ok := want.([]any); ok {
			return matchList(got, list, at)
		}
		if equal(got, want) {
			return nil
		}
		return fmt.Errorf("%s is %s, want %v", at, show(got), want)
	}
	for _, key := range slices.Sorted(maps.Keys(object)) {
		operand := object[key]
		if op, ok := operators[key]; ok && isOperator(key, operand) {
			if err := op(got, operand, at); err != nil {
				return err
			}
			continue
		}
		var member any = missing{}
		if m, ok := got.(map[string]any); ok {
			if v, ok := m[key]; ok {
				member = v
			}
		}
		if err := match(member, operand, at+"."+key); err != nil {
			return err
		}
	}
	return nil
}

// isOperator tells the operator "type" from a member that is called type.
func isOperator(key string, operand any) bool {
	_, text := operand.(string)
	return key != "type" || text
}

type operator func(got, operand any, at string) error

var operators map[string]operator

func init() {
	operators = map[string]operator{
		"absent": func(got, operand any, at string) error {
			if _, none := got.(missing); none != operand.(bool) {
				return fmt.Errorf("%s is %s", at, show(got))
			}
			return nil
		},
		"exists": func(got, operand any, at string) error {
			if _, none := got.(missing); none == operand.(bool) {
				return fmt.Errorf("%s is %s", at, show(got))
			}
			return nil
		},
		"type": func(got, operand any, at string) error {
			kinds := map[string]bool{}
			switch got.(type) {
			case string:
				kinds["string"] = true
			case map[string]any:
				kinds["object"] = true
			case []any:
				kinds["array"] = true
			case float64, int:
				kinds["number"] = true
			case bool:
				kinds["boolean"] = true
			case nil:
				kinds["null"] = true
			}
			if !kinds[operand.(string)] {
				return fmt.Errorf("%s is %s, want a value of type %v", at, show(got), operand)
			}
			return nil
		},
		"one_of": func(got, operand any, at string) error { return some(got, operand.([]any), at) },
		"any_of": func(got, operand any, at string) error { return some(got, operand.([]any), at) },
		"all_of": func(got, operand any, at string) error {
			for _, want := range operand.([]any) {
				if err := match(got, want, at); err != nil {
					return err
				}
			}
			return nil
		},
		"count":     counts(func(have, want int) bool { return have == want }),
		"count_gte": counts(func(have, want int) bool { return have >= want }),
		"count_lte": counts(func(have, want int) bool { return have <= want }),
		"matches": words(func(s, want string) bool {
			ok, err := regexp.MatchString(want, s)
			return ok && err == nil
		}),
		"contains":    words(strings.Contains),
		"starts_with": words(strings.HasPrefix),
		"items": func(got, operand any, at string) error {
			if each, ok := operand.(map[string]any); ok {
				list, ok := got.([]any)
				if !ok {
					return fmt.Errorf("%s is %s, want an array", at, show(got))
				}
				for i, v := range list {
					if err := match(v, each, fmt.Sprintf("%s[%d]", at, i)); err != nil {
						return err
					}
				}
				return nil
			}
			return matchList(got, operand.([]any), at)
		},
	}
}

func matchList(got any, want []any, at string) error {
	list, ok := got.([]any)
	if !ok || len(list) < len(want) {
		return fmt.Errorf("%s is %s, want at least %d items", at, show(got), len(want))
	}
	for i, w := range want {
		if err := match(list[i], w, fmt.Sprintf("%s[%d]", at, i)); err != nil {
			return err
		}
	}
	return nil
}

func some(got any, wants []any, at string) error {
	var last error
	for _, want := range wants {
		if last = match(got, want, at); last == nil {
			return nil
		}
	}
	return fmt.Errorf("%s is %s, none of %v (%w)", at, show(got), wants, last)
}

func counts(holds func(have, want int) bool) operator {
	return func(got, operand any, at string) error {
		list, ok := got.([]any)
		if !ok || !holds(len(list), operand.(int)) {
			return fmt.Errorf("%s is %s, want a count of %v", at, show(got), operand)
		}
		return nil
	}
}

func words(holds func(s, want string) bool) operator {
	return func(got, operand any, at string) error {
		s, ok := got.(string)
		if !ok || !holds(s, operand.(string)) {
			return fmt.Errorf("%s is %s, want %v", at, show(got), operand)
		}
		return nil
	}
}

func equal(got, want any) bool {
	if n, ok := want.(int); ok {
		want = float64(n)
	}
	if n, ok := got.(int); ok {
		got = float64(n)
	}
	return reflect.DeepEqual(got, want)
}

func show(v any) string {
	if _, ok := v.(missing); ok {
		return "absent"
	}
	return fmt.Sprintf("%.300s", fmt.Sprintf("%#v", v))
}

// lookUp follows a path such as "tasks[*].parts[0]"; [*] gives many values.
func lookUp(v any, path string) []any {
	found := []any{v}
	for step := range strings.SplitSeq(strings.ReplaceAll(path, "[", ".["), ".") {
		var next []any
		for _, v := range found {
			switch v := v.(type) {
			case map[string]any:
				if member, ok := v[step]; ok {
					next = append(next, member)
				}
			case []any:
				index := strings.Trim(step, "[]")
				if index == "*" {
					next = append(next, v...)
				} else if i, err := strconv.Atoi(index); err == nil && i < len(v) {
					next = append(next, v[i])
				}
			}
		}
		found = next
	}
	return found
}
