package process

import (
	_ "embed"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/jail"
)

// Languages of this backend.
const (
	Python     = "python"
	JavaScript = "javascript"
	Shell      = "sh"
)

//go:embed bootstrap.py
var bootPy string

//go:embed bootstrap.js
var bootJS string

//go:embed bootstrap.sh
var bootSh string

// dialect is how one language is started, given its program and understood. All
// of them speak the frames of reply.go.
type dialect struct {
	language string
	// options of the interpreter, up to and with the bootstrap, which is told the
	// descriptors of its two ways to the node.
	options func(l sandbox.Limits, inlet, outlet int) []string
	env     []string
	// request is the program as the bootstrap reads it.
	request func(spec sandbox.Spec) ([]byte, error)
	// reserves: the interpreter reserves far more address space than it uses, so
	// that a limit on address space would not let it start.
	reserves bool
	// threads and processes that the interpreter needs for itself.
	threads int
	// resultFile: the result is what the program leaves in [resultFile], for it
	// has no variable that could be looked at.
	resultFile bool
	// starved says whether the interpreter ended for want of memory, where it
	// does so in a way of its own.
	starved func(exit jail.Exit, stderr []byte) bool
}

// resultFile is the result of programs that have no variable to look at.
const resultFile = "result.json"

var dialects = []dialect{
	{
		language: Python,
		options: func(_ sandbox.Limits, inlet, outlet int) []string {
			return []string{"-I", "-S", "-B", "-X", "utf8", "-c", fmt.Sprintf("%s\nboot(%d, %d)\n", bootPy, inlet, outlet)}
		},
		request: framed,
		threads: 1,
	},
	{
		language: JavaScript,
		options:  nodeOptions,
		env:      []string{"UV_THREADPOOL_SIZE=2", "NODE_NO_WARNINGS=1"},
		request:  framed,
		reserves: true,
		threads:  nodeThreads,
		starved: func(exit jail.Exit, stderr []byte) bool {
			return exit.Signal == int(unix.SIGABRT) && slices.ContainsFunc(nodeStarved, func(text string) bool { return strings.Contains(string(stderr), text) })
		},
	},
	{
		language: Shell,
		options: func(_ sandbox.Limits, inlet, outlet int) []string {
			return []string{"-c", fmt.Sprintf("i=%d o=%d\n%s", inlet, outlet, bootSh), "main.sh"}
		},
		request:    scripted,
		threads:    3, // itself, and what reads the program
		resultFile: true,
	},
}

// Languages are those that interpreters of this package speak.
func Languages() []string {
	var all []string
	for _, d := range dialects {
		all = append(all, d.language)
	}
	return all
}

// Command is how the interpreter of a language is started elsewhere than in a
// jail of this package, for [Execute]: its options, and its environment besides
// what every program has. It reads its program from descriptor inlet and answers
// on outlet.
func Command(language string, l sandbox.Limits, inlet, outlet int) (options, env []string, err error) {
	d, err := dialectOf(language)
	if err != nil {
		return nil, nil, err
	}
	return d.options(l, inlet, outlet), d.env, nil
}

func dialectOf(language string) (dialect, error) {
	i := slices.IndexFunc(dialects, func(d dialect) bool { return d.language == language })
	if i < 0 {
		return dialect{}, fmt.Errorf("%w: no interpreter speaks %.40q here", sandbox.ErrUnavailable, language)
	}
	return dialects[i], nil
}

// nodeStarved is what Node.js says before it aborts for want of memory: its heap,
// its engine, the C++ library.
var nodeStarved = []string{"heap out of memory", "process out of memory", "std::bad_alloc"}

// nodeThreads are those of an idle node: its own, two for the compiler and the
// collector, one that waits for signals, two for files.
const nodeThreads = 8

func nodeOptions(l sandbox.Limits, inlet, outlet int) []string {
	// The collector works before the memory limit is reached. What is not on the
	// heap takes the rest.
	heap := max(l.Memory*5/8, 16<<20) >> 20
	return []string{
		"--max-old-space-size=" + strconv.FormatInt(heap, 10), "--max-semi-space-size=2", "--v8-pool-size=2",
		"--no-deprecation", "-e", fmt.Sprintf("%s(%d, %d);\n", bootJS, inlet, outlet),
	}
}

// framed is the lengths of the program, of its result at most and of its
// arguments, then program and arguments.
func framed(spec sandbox.Spec) ([]byte, error) {
	args, err := json.Marshal(append([]string{}, spec.Args...))
	if err != nil {
		return nil, fmt.Errorf("encode arguments: %w", err)
	}
	head := make([]byte, 0, 12+len(spec.Code)+len(args))
	head = binary.BigEndian.AppendUint32(head, uint32(len(spec.Code)))
	head = binary.BigEndian.AppendUint32(head, uint32(min(spec.Limits.Result, maxReply)))
	head = binary.BigEndian.AppendUint32(head, uint32(len(args)))
	return slices.Concat(head, spec.Code, args), nil
}

// scripted is a line with the lengths of program and arguments, then the
// arguments, quoted for the shell, and the program.
func scripted(spec sandbox.Spec) ([]byte, error) {
	var args strings.Builder
	for i, a := range spec.Args {
		if i > 0 {
			args.WriteByte(' ')
		}
		args.WriteString("'" + strings.ReplaceAll(a, "'", `'\''`) + "'")
	}
	head := fmt.Sprintf("%d %d\n", len(spec.Code), args.Len())
	return []byte(head + args.String() + string(spec.Code)), nil
}

// check refuses a run whose limits do not let the interpreter start.
func (d dialect) check(l sandbox.Limits) error {
	if l.Processes < d.threads {
		return fmt.Errorf("%w: %s needs at least %d processes and threads for itself, not %d", sandbox.ErrSpec, d.language, d.threads, l.Processes)
	}
	return nil
}
