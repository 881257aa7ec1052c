// Command guest is what the suite runs as WebAssembly: its arguments are verbs
// with their objects, done one after the other.
package main

import (
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

func main() {
	args := os.Args[1:]
	next := func() string {
		if len(args) == 0 {
			return ""
		}
		a := args[0]
		args = args[1:]
		return a
	}
	value := func(text string) { must(os.WriteFile("result.json", []byte(text), 0o644)) }
	for len(args) > 0 {
		switch verb := next(); verb {
		case "say":
			os.Stdout.WriteString(next() + "\n")
		case "complain":
			os.Stderr.WriteString(next() + "\n")
		case "value":
			value(next())
		case "long-value":
			value(`"` + strings.Repeat("x", number(next())) + `"`)
		case "deep-value":
			n := number(next())
			value(strings.Repeat("[", n) + strings.Repeat("]", n))
		case "exit":
			os.Exit(number(next()))
		case "panic":
			panic(next())
		case "loop":
			for {
			}
		case "sleep":
			time.Sleep(time.Hour)
		case "flood":
			line := strings.Repeat("x", 999) + "\n"
			for {
				os.Stdout.WriteString(line)
			}
		case "print":
			os.Stdout.WriteString(strings.Repeat("x", number(next())))
		case "eat":
			var kept [][]byte
			for {
				b := make([]byte, 1<<20)
				for i := 0; i < len(b); i += 4096 {
					b[i] = 1
				}
				kept = append(kept, b)
			}
		case "numbers": // of stdin
			text, err := io.ReadAll(os.Stdin)
			must(err)
			value("[" + strings.Join(strings.Fields(string(text)), ",") + "]")
		case "sizes": // of files
			var out []string
			for _, name := range strings.Split(next(), ",") {
				b, err := os.ReadFile(name)
				must(err)
				out = append(out, strconv.Itoa(len(b)))
			}
			value("[" + strings.Join(out, ",") + "]")
		case "leave":
			name := next()
			if i := strings.LastIndexByte(name, '/'); i > 0 {
				must(os.MkdirAll(name[:i], 0o755))
			}
			must(os.WriteFile(name, []byte(next()), 0o644))
		case "exists": // which of these
			found := []string{}
			for _, name := range strings.Split(next(), ",") {
				if _, err := os.Stat(name); err == nil {
					found = append(found, strconv.Quote(name))
				}
			}
			value("[" + strings.Join(found, ",") + "]")
		case "list":
			entries, err := os.ReadDir(next())
			must(err)
			names := []string{}
			for _, e := range entries {
				names = append(names, strconv.Quote(e.Name()))
			}
			value("[" + strings.Join(names, ",") + "]")
		case "environment":
			names := []string{}
			for _, e := range os.Environ() {
				name, _, _ := strings.Cut(e, "=")
				names = append(names, strconv.Quote(name))
			}
			value("[" + strings.Join(names, ",") + "]")
		case "large-file":
			err := os.WriteFile("f", make([]byte, number(next())), 0o644)
			_ = os.Remove("f")
			value(strconv.FormatBool(err != nil))
		case "many-files":
			n := 0
			for ; n < 5000; n++ {
				if os.WriteFile("tmp/f"+strconv.Itoa(n), nil, 0o644) != nil {
					break
				}
			}
			must(os.Remove("tmp/f0")) // room for the answer
			value(strconv.FormatBool(n <= 80))
		case "link":
			value(strconv.FormatBool(os.Symlink(next(), "link") == nil))
		default:
			panic("unknown verb " + verb)
		}
	}
}

func number(text string) int {
	n, err := strconv.Atoi(text)
	must(err)
	return n
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
