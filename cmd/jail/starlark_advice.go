package main

import (
	"regexp"
	"strings"

	"go.starlark.net/syntax"
)

// keywordAdvice says what to write instead of a construct of Python that
// Starlark does not have, by the keyword at which the parser gave up.
var keywordAdvice = map[string]string{
	"class":    "classes are not available; use dicts and functions instead of class",
	"import":   "import is not available; json and math are already here, remove the line",
	"from":     "from ... import is not available; json and math are already here, write math.sqrt(x)",
	"try":      "try is not available, errors cannot be caught; check before you act, for instance with `if key in d:`",
	"except":   "except is not available, errors cannot be caught; check before you act",
	"finally":  "finally is not available, errors cannot be caught",
	"raise":    "raise is not available; use fail(\"message\") to end the program",
	"with":     "with is not available, there are no files or locks; inputs are in the dict files and the string stdin",
	"is":       "is is not available; use == and !=, also with None",
	"yield":    "yield and generators are not available; collect the values in a list and return it",
	"global":   "global is not available; keep what changes in a dict or list and change its elements",
	"nonlocal": "nonlocal is not available; keep what changes in a dict or list and change its elements",
	"del":      "del is not available; use d.pop(key) or list.pop(index)",
	"assert":   "assert is not available; use `if not condition: fail(\"message\")`",
	"async":    "async is not available; programs run from top to bottom",
	"await":    "await is not available; programs run from top to bottom",
	"as":       "as is not available, since import and with are not",
	"else":     "else of a loop is not available; set a variable before break and look at it after the loop",
	"elif":     "elif must follow the block of an if",
}

// nameHints say the same of names.
var nameHints = map[string]string{
	"open":       "there are no files to open; inputs are in the dict files (path to content) and the string stdin",
	"input":      "input() is not available; the string stdin holds all input, use stdin.splitlines()",
	"isinstance": "isinstance is not available; use type(x) == \"int\"",
	"eval":       "eval is not available", "exec": "exec is not available", "compile": "compile is not available",
	"super": "classes are not available; use dicts and functions", "object": "classes are not available; use dicts and functions",
	"map": "map is not available; use [f(x) for x in xs]", "filter": "filter is not available; use [x for x in xs if f(x)]",
	"format": "format is not available; use \"{}\".format(x)", "divmod": "divmod is not available; use (a // b, a % b)",
	"iter": "iterators are not available; use a for loop", "next": "iterators are not available; use a for loop",
	"frozenset": "frozenset is not available; use tuple(sorted(...))", "complex": "complex numbers are not available",
	"sys": "sys is not available; input is in the string stdin, and exit(code) ends the program",
	"os":  "os is not available, programs see nothing of the machine", "random": "random is not available, programs are deterministic",
	"time": "time is not available, programs are deterministic", "datetime": "datetime is not available, programs are deterministic",
	"re": "re is not available; use the methods of strings: split, find, replace, startswith",
	"id": "id is not available", "globals": "globals is not available", "locals": "locals is not available",
	"__name__": "__name__ is not available; call your main function directly",
}

var (
	gotToken     = regexp.MustCompile(`^got (.+), want (.+)$`)
	undefined    = regexp.MustCompile(`^undefined: (\w+)`)
	exceptionish = regexp.MustCompile(`^[A-Z]\w*(Error|Exception|Warning|Interrupt|Iteration|Exit)$|^Exception$`)
	fString      = regexp.MustCompile(`(?:^|[^\w'"])(?:[fF][rR]?|[rR][fF])["']`)
	prefixString = regexp.MustCompile(`(?:^|[^\w'"])[uUbBrR]{1,2}["']`)
	twoStrings   = regexp.MustCompile(`["'][ \t]+[a-zA-Z]{0,2}["']`)
	statement    = regexp.MustCompile(`^\s*(print|assert|match|exec|raise|nonlocal)\b`)
	hintedDef    = regexp.MustCompile(`^\s*def\b`)
	hintedName   = regexp.MustCompile(`^\s*[\w.]+\s*:`)
	number       = regexp.MustCompile(`\b\d[\d.]*(_\d|[jJ]\b)`)
)

// syntaxAdvice names the construct of Python on which the parser tripped and
// what to use instead, or is empty.
func syntaxAdvice(e syntax.Error, code []byte) string {
	line := sourceLine(code, int(e.Pos.Line))
	got, want := "", ""
	if m := gotToken.FindStringSubmatch(e.Msg); m != nil {
		got, want = strings.Trim(m[1], "'"), m[2]
	}
	if advice := keywordAdvice[got]; advice != "" {
		return advice
	}
	word := ""
	if m := statement.FindStringSubmatch(line); m != nil {
		word = m[1]
	}
	switch {
	case got == "**":
		return "** is not available; use pow(base, exponent)"
	case strings.Contains(e.Msg, "does not associate"):
		return "chained comparison is not available; write a < b and b < c"
	case strings.Contains(e.Msg, "input character '@'"):
		if strings.HasPrefix(strings.TrimSpace(line), "@") {
			return "decorators are not available; call the function yourself: f = decorate(f)"
		}
		return "@ is not available; write a loop to multiply matrices"
	case strings.Contains(e.Msg, "input character '!'"):
		return "! is not available; use not"
	case got == ":" && strings.Contains(line, ":="):
		return "the walrus := is not available; assign on a line of its own first"
	case (got == ":" || got == "-") && hintedDef.MatchString(line):
		return "type hints are not available; remove `: type` and `-> type`"
	case got == ":" && hintedName.MatchString(line):
		return "type hints are not available; write name = value"
	case want == "':'" && (got == "," || got == "}"):
		return "set literals are not available; use set([a, b])"
	case want == "':'" && got == "for":
		return "set comprehensions are not available; use set([x for x in xs])"
	case got == "for":
		return "generator expressions are not available; put [ ] around it to make a list"
	case got == "string literal" && fString.MatchString(line):
		return "f-strings are not available; use \"{} {}\".format(a, b) or \"%s\" % a"
	case word == "print":
		return "print is a function; write print(x)"
	case word == "assert":
		return keywordAdvice["assert"]
	case word == "match":
		return "match is not available; use if and elif"
	case got == "string literal" && twoStrings.MatchString(line):
		return "strings side by side are not joined; put + between them"
	case got == "string literal" && prefixString.MatchString(line):
		return "this string prefix is not available; only r\"...\" and b\"...\" are"
	case got == "*" && strings.Contains(line, "*"):
		return "star-unpacking is not available; use indexes and slices, or + to join lists"
	case got == "identifier" && number.MatchString(line):
		return "underscores in numbers and complex numbers are not available; write 1000"
	case strings.HasPrefix(line, " ") && got == "indent":
		return "unexpected indentation; begin the line where its block begins"
	case got == "=" && want == "':'":
		return "use == to compare"
	}
	return ""
}

// nameAdvice does the same for a name that does not exist.
func nameAdvice(message string) string {
	m := undefined.FindStringSubmatch(message)
	if m == nil {
		return ""
	}
	if hint := nameHints[m[1]]; hint != "" {
		return hint
	}
	if exceptionish.MatchString(m[1]) {
		return "exceptions are not available; use fail(\"message\") to end the program"
	}
	return ""
}

// sourceLine is the n-th line of code, counted from 1.
func sourceLine(code []byte, n int) string {
	for line := range strings.Lines(string(code)) {
		if n--; n == 0 {
			return strings.TrimRight(line, "\r\n")
		}
	}
	return ""
}
