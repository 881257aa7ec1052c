// Package floors_test holds the house of docs/ARCHITECTURE.md: which package
// may import which, and which foreign library lives where.
package floors_test

import (
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/agenticraft/node"

// floors says what each package may import of ours, from the roof down. A path
// that ends in /... covers the folder and all below it. The most exact line
// counts, and everybody may import internal/durable.
var floors = map[string]string{
	// 5: the only place where concrete meets concrete.
	"cmd/node": "...",
	// A program of the demonstration, a guest in the house.
	"cmd/demo": "identity",
	// Figures: what an agent does, and the bare log assembled as a node does.
	"cmd/bench": "a2a a2a/client a2a/server a2a/taskstore audit authz authz/mandate consensus identity internal/collector mesh registry",

	// 4
	"agent":                "a2a a2a/server audit authz authz/destination authz/mandate identity internal/recent sandbox", // a2a/server: the types of the Path it walks
	"agent/agenttest":      "agent a2a/... audit/... authz identity sandbox/...",
	"bridges/http":         "a2a a2a/server audit audit/export authz identity bridges/http/console",
	"bridges/...":          "a2a a2a/server audit authz identity",
	"bridges/mcp":          "a2a", // its tools are requests, which somebody else carries
	"bridges/nats":         "a2a a2a/natsrpc a2a/server identity",
	"mesh":                 "a2a identity",
	"registry":             "audit authz/destination identity", // keepers hold intents to their tenant's network
	"audit/threat":         "audit identity",                   // an alert names a node
	"audit/export":         "audit",                            // what other tools read, for the door and the offline verifier
	"bridges/http/console": "",

	// 3
	"a2a":                     "identity",
	"a2a/server":              "a2a a2a/taskstore identity",
	"a2a/client":              "a2a identity",
	"a2a/natsrpc":             "a2a identity",
	"a2a/natsrpc/natstest":    "",
	"a2a/taskstore":           "a2a identity",
	"a2a/push":                "a2a a2a/taskstore identity", // delivers what the task store queues
	"a2a/conformance":         "a2a a2a/push a2a/server a2a/taskstore identity",
	"authz":                   "identity authz/destination authz/plan internal/recent",
	"authz/plan":              "", // how policies are evaluated, which knows nothing of what they say
	"authz/mandate":           "identity authz/destination internal/recent",
	"authz/destination":       "", // HOST:PORT and its patterns, which policy and mandates share
	"audit":                   "identity internal/recent",
	"audit/audittest":         "audit identity",
	"consensus":               "identity",
	"consensus/consensustest": "consensus identity",

	// 2
	"identity":            "internal/recent",
	"sandbox/process":     "sandbox sandbox/egress sandbox/jail sandbox/jail/wire sandbox/runtime",
	"sandbox/restricted":  "sandbox sandbox/jail sandbox/worker",
	"sandbox/wasm":        "sandbox sandbox/jail sandbox/runtime sandbox/worker sandbox/worker/protocol",
	"sandbox/worker":      "sandbox sandbox/jail sandbox/jail/wire sandbox/worker/protocol", // jailed workers, of Starlark and WASM alike
	"sandbox/docker":      "sandbox sandbox/egress sandbox/jail sandbox/jail/seccomp sandbox/jail/wire sandbox/process sandbox/runtime",
	"sandbox/sandboxtest": "sandbox/...",
	"sandbox/jail":        "sandbox sandbox/jail/wire",
	// The small helper: what runs inside knows nothing of the manager outside.
	"sandbox/jail/...":        "sandbox/jail/...",
	"sandbox/worker/protocol": "",
	"sandbox/runtime":         "sandbox",
	"sandbox/egress":          "sandbox",
	"cmd/jail":                "sandbox/jail/... sandbox/worker/protocol",

	// 1
	"sandbox":          "",
	"internal/durable": "",
	"internal/recent":  "", // what was computed lately, in bounded memory
	// How often memory is collected: of programs, not of packages.
	"internal/collector": "",
	// For tests alone.
	"internal/leaktest": "",
	"internal/nodetest": "",
}

// never are walls that no detour may get around.
var never = map[string]string{
	"consensus":   "audit mesh agent registry authz",
	"audit":       "consensus mesh agent registry authz sandbox",
	"mesh":        "agent consensus audit registry authz sandbox",
	"agent":       "mesh consensus registry bridges/...",
	"bridges/...": "agent sandbox mesh consensus registry",
	"a2a/...":     "audit authz agent mesh consensus registry sandbox",
	"authz":       "audit registry a2a sandbox",
	"registry":    "authz agent mesh consensus",
	"sandbox/...": "agent audit authz identity a2a mesh consensus",
	"cmd/jail":    "identity a2a audit authz agent mesh consensus registry",
}

// homes says where a foreign library may be imported; what it exports stays
// there. Tests may use any.
var homes = map[string]string{
	"filippo.io/edwards25519":              "identity",
	"github.com/hashicorp/raft":            "consensus",
	"go.etcd.io/bbolt":                     "audit consensus a2a/taskstore",
	"github.com/libp2p":                    "mesh",
	"github.com/multiformats":              "mesh",
	"github.com/open-policy-agent":         "authz authz/plan",
	"github.com/docker":                    "sandbox/docker",
	"github.com/a2aproject":                "a2a/... agent bridges/... cmd/bench cmd/node",
	"go.starlark.net":                      "cmd/jail",
	"github.com/tetratelabs":               "cmd/jail",
	"github.com/nats-io":                   "a2a/natsrpc a2a/natsrpc/natstest bridges/nats cmd/bench",
	"github.com/modelcontextprotocol":      "bridges/mcp",
	"github.com/spf13":                     "cmd/node cmd/demo",
	"golang.org/x/mod/sumdb":               "audit",
	"github.com/elastic/go-seccomp-bpf":    "sandbox/docker sandbox/jail/...",
	"github.com/landlock-lsm/go-landlock":  "sandbox/jail/...",
	"github.com/coreos/go-oidc":            "authz",
	"golang.org/x/oauth2":                  "cmd/node",
	"github.com/stretchr/testify":          "",
	"github.com/open-policy-agent/opa/sdk": "",
}

// vague names say nothing about what is inside.
var vague = []string{"pkg", "util", "utils", "common", "types", "models", "helpers", "misc"}

func TestImportsRunDownTheFloors(t *testing.T) {
	for pkg, imports := range ours(t) {
		line, ok := lookup(floors, pkg)
		if !ok {
			t.Errorf("package %s has no floor: add it to the table, and say why in the commit", pkg)
			continue
		}
		for _, to := range imports {
			if to != "internal/durable" && !covers(line, to) {
				t.Errorf("%s imports %s, may import: %q", pkg, to, line)
			}
		}
	}
}

func TestNoDetourAroundAWall(t *testing.T) {
	graph := ours(t)
	for pkg := range graph {
		for from, line := range never {
			if !matches(from, pkg) || strings.HasSuffix(pkg, "test") {
				continue
			}
			for _, to := range slices.Sorted(maps.Keys(reach(graph, pkg))) {
				if to != pkg && covers(line, to) {
					t.Errorf("%s reaches %s, which it must never know", pkg, to)
				}
			}
		}
	}
}

func TestForeignLibrariesStayAtHome(t *testing.T) {
	for pkg, imports := range scan(t) {
		for _, to := range imports {
			library := ""
			for l := range homes {
				if (to == l || strings.HasPrefix(to, l+"/")) && len(l) > len(library) {
					library = l
				}
			}
			if library != "" && !covers(homes[library], pkg) {
				t.Errorf("%s imports %s, whose home is: %q", pkg, to, homes[library])
			}
		}
	}
}

func TestPackagesAreNamedForWhatTheyAre(t *testing.T) {
	for pkg := range scan(t) {
		for part := range strings.SplitSeq(pkg, "/") {
			if slices.Contains(vague, part) {
				t.Errorf("package %s: %q says nothing about what is inside", pkg, part)
			}
		}
	}
}

// The guards themselves: a table that matches nothing would hold nothing.
func TestTheTableBites(t *testing.T) {
	for _, c := range []struct {
		line, pkg string
		want      bool
	}{
		{"a2a identity", "a2a", true},
		{"a2a identity", "a2a/server", false},
		{"sandbox/...", "sandbox", true},
		{"sandbox/...", "sandbox/jail/wire", true},
		{"sandbox/...", "sandboxes", false},
		{"...", "anything/at/all", true},
		{"", "identity", false},
	} {
		if got := covers(c.line, c.pkg); got != c.want {
			t.Errorf("covers(%q, %q) = %v, want %v", c.line, c.pkg, got, c.want)
		}
	}
	if line, ok := lookup(floors, "bridges/http"); !ok || !strings.Contains(line, "console") {
		t.Errorf("bridges/http found %q: the most exact line must count", line)
	}
	if graph := scan(t); len(graph) < 10 || !slices.Contains(graph["identity"], module+"/internal/durable") {
		t.Errorf("the scan found %d packages only", len(graph))
	}
}

// scan returns the imports of every package of the module, by path below its
// root: those of all files but tests, for all platforms.
func scan(t *testing.T) map[string][]string {
	t.Helper()
	found := map[string]map[string]bool{}
	err := filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		switch base := entry.Name(); {
		case errors.Is(err, fs.ErrNotExist):
			return nil // a build removed it meanwhile
		case err != nil:
			return err
		case entry.IsDir() && name != "." && (strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") || base == "testdata" || base == "bin"):
			return filepath.SkipDir
		case entry.IsDir() || !strings.HasSuffix(base, ".go") || strings.HasSuffix(base, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return fmt.Errorf("imports of %s: %w", name, err)
		}
		pkg := path.Dir(filepath.ToSlash(name))
		if found[pkg] == nil {
			found[pkg] = map[string]bool{}
		}
		for _, spec := range file.Imports {
			to, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return fmt.Errorf("imports of %s: %w", name, err)
			}
			found[pkg][to] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	imports := map[string][]string{}
	for pkg, set := range found {
		imports[pkg] = slices.Sorted(maps.Keys(set))
	}
	return imports
}

// ours is scan with nothing but this module's packages.
func ours(t *testing.T) map[string][]string {
	t.Helper()
	graph := map[string][]string{}
	for pkg, imports := range scan(t) {
		graph[pkg] = nil
		for _, to := range imports {
			if below, ok := strings.CutPrefix(to, module+"/"); ok {
				graph[pkg] = append(graph[pkg], below)
			}
		}
	}
	return graph
}

// reach is everything that pkg imports, directly or not, and pkg itself.
func reach(graph map[string][]string, pkg string) map[string]bool {
	seen, todo := map[string]bool{pkg: true}, []string{pkg}
	for len(todo) > 0 {
		next := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, to := range graph[next] {
			if !seen[to] {
				seen[to] = true
				todo = append(todo, to)
			}
		}
	}
	return seen
}

// lookup finds the most exact line for a package.
func lookup(table map[string]string, pkg string) (line string, ok bool) {
	best := -1
	for pattern, l := range table {
		exact := len(strings.TrimSuffix(pattern, "/..."))
		if pattern == pkg {
			return l, true
		}
		if matches(pattern, pkg) && exact > best {
			best, line, ok = exact, l, true
		}
	}
	return line, ok
}

// covers reports whether one of the patterns in line matches pkg.
func covers(line, pkg string) bool {
	return slices.ContainsFunc(strings.Fields(line), func(pattern string) bool { return matches(pattern, pkg) })
}

func matches(pattern, pkg string) bool {
	if pattern == "..." || pattern == pkg {
		return true
	}
	folder, all := strings.CutSuffix(pattern, "/...")
	return all && (pkg == folder || strings.HasPrefix(pkg, folder+"/"))
}
