package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/agenticraft/node/audit"
)

// The pages of the documentation, from this package's folder.
func docPages(t *testing.T) []string {
	t.Helper()
	var pages []string
	for _, pattern := range []string{"../../*.md", "../../docs/*.md", "../../docs/decisions/*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, found...)
	}
	if len(pages) < 8 {
		t.Fatalf("found only %v", pages)
	}
	return pages
}

func readPage(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// docCommand is one command of a ```sh block.
type docCommand struct {
	line   int    // in the page, from 1
	text   string // may have several lines
	exits  int    // expected exit code
	prints string // expected somewhere in what it prints, "" for anything
}

var (
	docExits  = regexp.MustCompile(`\s+# exits (\d+)$`)
	docPrints = regexp.MustCompile(`\s+# prints (.+)$`)
	docAssign = regexp.MustCompile(`^(export )?[A-Z_]+=\S+$|^(export )?[A-Z_]+=\$\(.*\)$|^(export )?[A-Z_]+='.*'$`)
	docHere   = regexp.MustCompile(`<<'?([A-Z]+)'?`)
)

// docCommands takes a page's ```sh blocks apart. A command goes on over lines
// that end in a backslash and over a here-document.
func docCommands(t *testing.T, page string) []docCommand {
	t.Helper()
	var out []docCommand
	inside, until := false, ""
	var open *docCommand
	for i, line := range strings.Split(page, "\n") {
		switch {
		case open == nil && strings.HasPrefix(line, "```"):
			inside = !inside && strings.TrimSpace(line) == "```sh"
			continue
		case !inside:
			continue
		case open == nil && (strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#")):
			continue
		}
		if open == nil {
			open = &docCommand{line: i + 1}
			if m := docExits.FindStringSubmatch(line); m != nil {
				code, err := strconv.Atoi(m[1])
				if err != nil {
					t.Fatal(err)
				}
				open.exits = code
			}
			if m := docPrints.FindStringSubmatch(line); m != nil {
				open.prints = m[1]
			}
			if m := docHere.FindStringSubmatch(line); m != nil {
				until = m[1]
			}
		}
		open.text += line + "\n"
		if until == line {
			until = ""
		}
		if until == "" && !strings.HasSuffix(line, `\`) {
			out = append(out, *open)
			open = nil
		}
	}
	if open != nil {
		t.Fatalf("line %d: a command without end", open.line)
	}
	return out
}

// ranElsewhere are the commands that do not end, need the network, or are
// tests of their own: `make demo` and `make test` are what continuous
// integration runs.
func ranElsewhere(command string) bool {
	for _, prefix := range []string{"git clone ", "cd ", "make", "bin/agenticraft dev", "agenticraft dev", "nats-server "} {
		if strings.HasPrefix(command, prefix) {
			return true
		}
	}
	return strings.HasPrefix(command, "agenticraft serve ") && !strings.Contains(command, "--print-config")
}

// Every command of the documentation works as it is written, in order, in a
// folder where `agenticraft dev --data dev-data` runs: from the place on where the
// page says so, with what it exported until then, or from the beginning.
func TestCommandsOfTheDocumentationWork(t *testing.T) {
	needPython(t)
	total := 0
	for _, name := range docPages(t) {
		text := readPage(t, name)
		if strings.Contains(text, "\nnats-server -c ") {
			text = onFreePort(t, text)
		}
		commands, run := docCommands(t, text), 0
		for _, command := range commands {
			if !ranElsewhere(command.text) {
				run++
			}
		}
		if total += run; run > 0 {
			t.Run(filepath.Base(name), func(t *testing.T) { runPage(t, name, commands) })
		}
	}
	if total < 40 {
		t.Errorf("only %d commands were found", total)
	}
}

// onFreePort is a page with a free port in place of NATS's own, which may be taken.
func onFreePort(t *testing.T, page string) string {
	t.Helper()
	port, err := devPorts(t.Context(), 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(page, "127.0.0.1:4222", fmt.Sprintf("127.0.0.1:%d", port))
}

// runPage does what a page's reader does.
func runPage(t *testing.T, name string, commands []docCommand) {
	dir := t.TempDir()
	c := &testCluster{t: t, dir: dir, data: filepath.Join(dir, "dev-data"), out: new(printout)}
	strangersModule(t, dir) // for programs of the page
	// The page's commands find the binary as its reader does, in bin and
	// on the PATH.
	bin := filepath.Join(dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(testBinary, filepath.Join(bin, "agenticraft")); err != nil {
		t.Fatal(err)
	}
	// What the page sets comes to this. Its programs are built as the binary was.
	set := "export CGO_ENABLED=0 GOFLAGS=-trimpath PATH=" + bin + ":$PATH\n"
	isDev := func(command docCommand) bool {
		return strings.HasPrefix(strings.TrimPrefix(command.text, "bin/"), "agenticraft dev")
	}
	start := func() {
		c.before = set
		c.startDev(3)
		t.Cleanup(c.stop)
	}
	if !slices.ContainsFunc(commands, isDev) {
		start()
	}
	for _, command := range commands {
		file, broker := strings.CutPrefix(command.text, "nats-server -c ")
		tool, missing := lacksTool(command.text)
		switch {
		case docAssign.MatchString(strings.TrimSpace(command.text)):
			set += command.text
		case isDev(command) && c.dev == nil:
			start()
		case broker:
			startConfigured(t, filepath.Join(dir, strings.TrimSpace(file)))
		case ranElsewhere(command.text):
		case missing:
			t.Logf("line %d: not run, this machine has no %s", command.line, tool)
		default:
			runCommand(c, name, set, command)
		}
	}
}

// runCommand runs a command of a page after what the page has set.
func runCommand(c *testCluster, name, set string, command docCommand) {
	c.t.Helper()
	var r result
	works := func() bool {
		r = c.runShell(set + command.text)
		return r.code == command.exits && strings.Contains(r.stdout+r.stderr, command.prints)
	}
	// A cluster that has just begun has something to wait for, and what no request waits
	// for, such as denials, is in the log a moment later.
	later := strings.HasPrefix(command.text, "agenticraft doctor ") || strings.HasPrefix(command.text, "agenticraft audit list")
	for end := time.Now().Add(conditionMet); later && !works() && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
	if !works() {
		c.t.Errorf("%s:%d: %sexited with %d, want %d and %q:\n%s%s",
			name, command.line, command.text, r.code, command.exits, command.prints, r.stdout, r.stderr)
	}
}

// lacksTool names the program that a command needs and a bare machine may
// lack.
func lacksTool(command string) (string, bool) {
	if !strings.Contains(command, "curl ") {
		return "", false
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if _, err := os.Stat(filepath.Join(dir, "curl")); err == nil {
			return "", false
		}
	}
	return "curl", true
}

// The original's four names and its example program are valid.
func TestTheOriginalsNamesAndProgram(t *testing.T) {
	c := &testCluster{t: t, dir: t.TempDir()}
	r := c.runWith([]string{
		"AGENTICRAFT_DEFAULT_SANDBOX=restricted", "AGENTICRAFT_SANDBOX_MEMORY_MB=128",
		"AGENTICRAFT_SANDBOX_CPU_PERCENT=50", "AGENTICRAFT_SANDBOX_TIMEOUT=10",
	}, "", "serve", "--data", c.dir, "--print-config")
	for _, want := range []string{
		`sandbox: "restricted"  # environment AGENTICRAFT_DEFAULT_SANDBOX`,
		`sandbox_memory_mb: "128"  # environment AGENTICRAFT_SANDBOX_MEMORY_MB`,
		`sandbox_cpu_percent: "50"  # environment AGENTICRAFT_SANDBOX_CPU_PERCENT`,
		`sandbox_timeout: "10"  # environment AGENTICRAFT_SANDBOX_TIMEOUT`,
	} {
		if r.code != exitOK || !strings.Contains(r.stdout, want+"\n") {
			t.Errorf("exit %d, no line %s in\n%s%s", r.code, want, r.stdout, r.stderr)
		}
	}
	// Its program, calculate(10, 20), is in the README and in TestCalculate.
	if readme := readPage(t, "../../README.md"); !strings.Contains(readme, "calculate(10, 20)") {
		t.Error("the README lacks the original's example program")
	}
}

// Links between pages, to files and to headings of other pages lead somewhere.
func TestLinksOfTheDocumentation(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#\s]+)(#[^)]*)?\)`)
	for _, name := range docPages(t) {
		for _, m := range link.FindAllStringSubmatch(readPage(t, name), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(name), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", name, m[1], err)
			}
		}
	}
}

// The tests and source files that the pages name exist.
func TestNamesInTheDocumentation(t *testing.T) {
	tests := map[string]bool{}
	err := filepath.WalkDir("../..", func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(name, "_test.go") {
			return err
		}
		for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Example)\w+)`).FindAllStringSubmatch(readPage(t, name), -1) {
			tests[m[1]] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	testName := regexp.MustCompile("`((?:Test|Fuzz|Example)[A-Z]\\w+)`")
	source := regexp.MustCompile("`((?:[a-z0-9]+/)+[a-z0-9_]+\\.(?:go|rego|json|star|py))`")
	for _, name := range docPages(t) {
		text := readPage(t, name)
		for _, m := range testName.FindAllStringSubmatch(text, -1) {
			if !tests[m[1]] {
				t.Errorf("%s names the test %s, which does not exist", name, m[1])
			}
		}
		for _, m := range source.FindAllStringSubmatch(text, -1) {
			if strings.HasPrefix(m[1], "dev-data/") {
				continue // of a reader's cluster
			}
			if _, err := os.Stat(filepath.Join("../..", m[1])); err != nil {
				t.Errorf("%s names the file %s, which does not exist", name, m[1])
			}
		}
	}
}

// The reference tables say what the code says.
func TestTablesOfTheDocumentation(t *testing.T) {
	operations := readPage(t, "../../docs/operations.md")
	for _, s := range settingsTable() {
		row := fmt.Sprintf("| `%s` | `%s` |", s.key, s.env)
		if !strings.Contains(operations, row) {
			t.Errorf("docs/operations.md lacks the row %s", row)
		}
		if s.text != "" && !strings.Contains(operations, "`"+s.text+"`") && s.key != "mesh" {
			t.Errorf("docs/operations.md lacks the default %q of %s", s.text, s.key)
		}
	}
	for _, m := range regexp.MustCompile("`agenticraft_([a-z]+)_([a-z_]+)`").FindAllStringSubmatch(operations, -1) {
		if source := readPage(t, filepath.Join("../..", m[1], "metrics.go")); !strings.Contains(source, m[2]) {
			t.Errorf("docs/operations.md names the metric agenticraft_%s_%s, which does not exist", m[1], m[2])
		}
	}
	formats := readPage(t, "../../docs/formats.md")
	for _, k := range audit.Kinds() {
		if !strings.Contains(formats, "| `"+string(k)+"` |") {
			t.Errorf("docs/formats.md lacks the kind %s", k)
		}
	}
	errorCode := regexp.MustCompile(`Code\w+\s+= "(\w+)"`)
	for _, m := range errorCode.FindAllStringSubmatch(readPage(t, "../../a2a/errors.go"), -1) {
		row := regexp.MustCompile("(?m)^\\| `" + m[1] + "` \\|.*\\| ([0-9]) \\|").FindStringSubmatch(formats)
		if want := strconv.Itoa(exitFor(m[1])); row == nil || row[1] != want {
			t.Errorf("docs/formats.md lacks the error code %s, which exits with %s: %q", m[1], want, row)
		}
	}
	for _, code := range []string{"usage", "unverified"} {
		if said := fmt.Sprintf("`%s` (exit %d)", code, exitFor(code)); !strings.Contains(formats, said) {
			t.Errorf("docs/formats.md does not say %s", said)
		}
	}
}
