package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/spf13/cobra"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/client"
	"github.com/agenticraft/node/internal/durable"
	"github.com/agenticraft/node/sandbox/process"
)

// execFlags are the flags of exec, as the user wrote them.
type execFlags struct {
	lang, runtime, sandbox, memory, network, on, out, receipt, code, mandate, class string
	cpu                                                                             int
	timeout                                                                         time.Duration
	files                                                                           []string
	stdin, detach                                                                   bool
}

// languages are those that exec knows by name and by file ending.
var languages = map[string]string{
	"python": ".py", "starlark": ".star", "javascript": ".js", "sh": ".sh", "wasm": ".wasm",
}

const (
	maxCodeFile = 8 << 20          // bytes read of FILE, stdin and --file
	execSlack   = 60 * time.Second // beyond the time limit
	maxRun      = 10 * time.Minute // of a run that asked for no limit
	cancelWait  = 10 * time.Second
)

func (a *app) execCommand() *cobra.Command {
	var f execFlags
	cmd := &cobra.Command{
		Use:   "exec [flags] (FILE | - | -c CODE) [-- ARG…]",
		Short: "Run code on the cluster",
		Long: `Run code on the cluster, and exit with the code that it exits with.

What stands behind -- are the program's arguments. In python, javascript and
starlark the variable "result" is the result; in sh and wasm it is the JSON that
the program leaves in the file result.json. With --lang wasm, FILE is a module
for WASI preview 1, and CODE is sha256: and the digest of one that the node has.

Exit codes of its own: 124 timed out, 130 cancelled, 137 out of memory, 3 denied,
4 no quorum or no capacity, 1 language error, failed or lost.`,
		Args: func(cmd *cobra.Command, args []string) error {
			// An empty program is a program.
			given, _ := split(cmd, args)
			if cmd.Flags().Changed("code") != (len(given) == 0) || len(given) > 1 {
				return usage("exec needs exactly one of FILE, - and -c CODE; the program's arguments stand behind --")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, name := range []string{"cpu", "timeout"} {
				if flag := cmd.Flag(name); flag.Changed && flag.Value.String() == flag.DefValue {
					return usage("--%s %s would be no limit; leave it out for the node's default", name, flag.Value)
				}
			}
			given, own := split(cmd, args)
			req, err := a.execution(f, given)
			if err != nil {
				return err
			}
			req.Args = own
			return a.exec(cmd.Context(), f, req)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.code, "code", "c", "", "the code itself")
	flags.StringVar(&f.lang, "lang", "", "python, starlark, javascript, sh or wasm (default: by FILE's ending, else python)")
	flags.StringVar(&f.runtime, "runtime", "", "name or digest of the runtime (default: the language's own)")
	flags.StringVar(&f.sandbox, "sandbox", "auto", "auto, process, docker, restricted or wasm")
	flags.StringVar(&f.memory, "memory", "", "memory limit, such as 256MiB")
	flags.IntVar(&f.cpu, "cpu", 0, "CPU limit in percent of one core")
	flags.DurationVar(&f.timeout, "timeout", 0, "time limit, such as 30s")
	flags.StringVar(&f.network, "network", "none", "none, or allow=HOST:PORT,…")
	flags.StringVar(&f.class, "data-class", "", "what the code and its data are, such as internal; policy says who may run what")
	flags.StringArrayVar(&f.files, "file", nil, "SRC[:DST]: put a file into the working folder (may be repeated)")
	flags.StringVar(&f.out, "out", "", "write the files that the program leaves into this folder")
	flags.StringVar(&f.on, "on", "any", "any, local, or a node's ID")
	flags.BoolVar(&f.stdin, "stdin", false, "give this command's standard input to the program")
	flags.StringVar(&f.receipt, "receipt", "", "write the receipt to this file")
	flags.StringVar(&f.mandate, "mandate", "", "file with the mandate under which --agent-key asks")
	flags.BoolVar(&f.detach, "detach", false, "print the task's ID and leave it running")
	return cmd
}

// split tells what exec runs from the arguments of the program.
func split(cmd *cobra.Command, args []string) (given, own []string) {
	if i := cmd.ArgsLenAtDash(); i >= 0 {
		return args[:i], args[i:]
	}
	return args, nil
}

// execution is the request that the flags describe.
func (a *app) execution(f execFlags, args []string) (a2a.Execution, error) {
	if _, err := durable.Target(f.receipt); err != nil { // told before anything runs
		return a2a.Execution{}, usage("--receipt: %v", err)
	}
	e := a2a.Execution{Language: f.lang, Runtime: f.runtime, Sandbox: f.sandbox, Network: f.network, On: f.on, Code: f.code, DataClass: f.class}
	if e.Sandbox == "auto" {
		e.Sandbox = ""
	}
	if e.Language == "" && len(args) == 1 {
		e.Language = languageOf(args[0])
	}
	if len(args) == 1 {
		text, err := a.source(args[0])
		if err != nil {
			return e, err
		}
		if e.Language == "wasm" {
			if len(text) > a2a.MaxFilesBytes {
				return e, &a2a.Error{
					Code: a2a.CodeTooLarge, Message: fmt.Sprintf("%s has %d bytes, and the files of a request have at most %d", args[0], len(text), a2a.MaxFilesBytes),
					Hint: "the node's operator can add it: agenticraft runtime add " + args[0] + "; then run: exec --lang wasm -c sha256:DIGEST",
				}
			}
			name := moduleName(args[0])
			e.Files, text = []a2a.File{{Path: name, Content: text}}, []byte(name)
		}
		e.Code = string(text)
	}
	if e.Language == "" {
		e.Language = "python"
	}
	if _, ok := languages[e.Language]; !ok {
		return e, usage("--lang %q is none of %s", e.Language, strings.Join(sortedKeys(languages), ", "))
	}
	switch f.sandbox {
	case "auto", "process", "docker", "restricted", "wasm":
	default:
		return e, usage("--sandbox %q is none of auto, process, docker, restricted, wasm", f.sandbox)
	}
	if f.stdin {
		if len(args) == 1 && args[0] == "-" {
			return e, usage("--stdin and - cannot both read standard input")
		}
		text, err := readCapped(a.stdin, "standard input", maxCodeFile)
		if err != nil {
			return e, err
		}
		e.Stdin = string(text)
	}
	if f.mandate != "" {
		text, err := a.source(f.mandate)
		if err != nil {
			return e, err
		}
		e.Mandate = strings.TrimSpace(string(text))
	}
	if err := setLimits(&e, f); err != nil {
		return e, err
	}
	for _, spec := range f.files {
		file, err := a.fileIn(spec)
		if err != nil {
			return e, err
		}
		e.Files = append(e.Files, file)
	}
	return e, nil
}

func setLimits(e *a2a.Execution, f execFlags) error {
	if f.memory != "" {
		n, err := parseBytes(f.memory)
		if err != nil {
			return usage("--memory %q: %v", f.memory, err)
		}
		e.Limits.MemoryBytes = n
	}
	if f.cpu < 0 {
		return usage("--cpu %d is negative", f.cpu)
	}
	if f.timeout < 0 || (f.timeout > 0 && f.timeout < time.Millisecond) {
		return usage("--timeout %v is not at least 1ms", f.timeout)
	}
	e.Limits.CPUPercent = f.cpu
	e.Limits.TimeoutMS = f.timeout.Milliseconds()
	return nil
}

// parseBytes reads "256MiB", "256M", "1GB", "1024".
func parseBytes(s string) (int64, error) {
	units := []struct {
		suffix string
		factor int64
	}{
		{"KiB", 1 << 10},
		{"MiB", 1 << 20},
		{"GiB", 1 << 30},
		{"KB", 1e3},
		{"MB", 1e6},
		{"GB", 1e9},
		{"K", 1 << 10},
		{"M", 1 << 20},
		{"G", 1 << 30},
		{"B", 1},
		{"", 1},
	}
	for _, u := range units {
		digits, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || n <= 0 || n > (1<<53)/u.factor {
			return 0, errors.New("not a size such as 256MiB")
		}
		return n * u.factor, nil
	}
	return 0, errors.New("not a size such as 256MiB")
}

// moduleName is the name under which a module travels.
func moduleName(file string) string {
	if file == "-" {
		return "module.wasm"
	}
	return filepath.Base(file)
}

func languageOf(name string) string {
	for lang, ending := range languages {
		if strings.HasSuffix(name, ending) {
			return lang
		}
	}
	return ""
}

func (a *app) source(name string) ([]byte, error) {
	if name == "-" {
		return readCapped(a.stdin, "standard input", maxCodeFile)
	}
	return readFile(name)
}

func (a *app) fileIn(spec string) (a2a.File, error) {
	src, dst, ok := strings.Cut(spec, ":")
	if !ok {
		dst = filepath.Base(src)
	}
	content, err := readFile(src)
	return a2a.File{Path: filepath.ToSlash(dst), Content: content}, err
}

// readFile reads a file to be sent; one that cannot be opened is a fault of the
// command line.
func readFile(name string) ([]byte, error) {
	text, err := readSmall(name, maxCodeFile)
	if errors.As(err, new(*fs.PathError)) {
		err = &a2a.Error{Code: "usage", Message: err.Error()}
	}
	return text, err
}

// exec sends the request, shows what came of it and exits with its code.
func (a *app) exec(ctx context.Context, f execFlags, e a2a.Execution) error {
	door, err := a.api(ctx)
	if err != nil {
		return err
	}
	cl, err := door.client(ctx)
	if err != nil {
		return err
	}
	rep, err := a.send(ctx, cl, e, f.detach)
	if err != nil {
		return door.unreachable(err)
	}
	if f.detach && rep.Status == a2a.Running {
		if a.json {
			a.print(rep)
		} else {
			fmt.Fprintln(a.stdout, rep.Task)
		}
		return nil
	}
	if err := a.keep(ctx, door, f, rep); err != nil {
		return err
	}
	return a.show(rep)
}

// send has the request run and waits for its end, showing output as it comes.
// An interrupt cancels the task and waits for what it says to that.
func (a *app) send(ctx context.Context, cl *client.Client, e a2a.Execution, detach bool) (a2a.Report, error) {
	var live printed
	rep, err := submit(ctx, cl, e, detach, client.Watcher{
		Output:   func(stream string, offset int64, data []byte) { a.live(&live, stream, offset, data) },
		Progress: func(line string) { fmt.Fprintf(a.stderr, "agenticraft: %s\n", process.Printable(line)) },
	}, func(err error) { fmt.Fprintf(a.stderr, "agenticraft: the task could not be cancelled: %v\n", err) })
	if err == nil && !detach && !a.json {
		a.rest(live, rep)
	}
	return rep, err
}

// submit has a request run and waits for its end, unless detach. When ctx ends it
// cancels the task, stuck being told if that failed, and waits for what the task
// says to that.
func submit(ctx context.Context, cl *client.Client, e a2a.Execution, detach bool, watch client.Watcher, stuck func(error)) (a2a.Report, error) {
	limit := time.Duration(e.Limits.TimeoutMS) * time.Millisecond
	if limit == 0 {
		limit = maxRun
	}
	wait, stop := context.WithTimeout(context.WithoutCancel(ctx), limit+execSlack)
	defer stop()
	req, err := a2a.NewRequest(e)
	if err != nil {
		return a2a.Report{}, err
	}
	if detach {
		req.Config = &sdk.SendMessageConfig{ReturnImmediately: true}
		task, err := cl.Send(wait, req, nil)
		if err != nil {
			return a2a.Report{}, err
		}
		return a2a.Describe(task)
	}
	settled := func() bool { return true }
	watch.Began = func(task string) {
		settled = context.AfterFunc(ctx, func() {
			ctx, done := context.WithTimeout(wait, cancelWait)
			defer done()
			if _, err := cl.Cancel(ctx, task, nil); err != nil {
				stuck(err)
			}
		})
	}
	task, err := client.Follow(cl.Stream(wait, req, nil), watch)
	settled() // an interrupt from here on has nothing to cancel
	if err != nil {
		return a2a.Report{}, err
	}
	return a2a.ReportOf(task)
}

// keep writes the files and the receipt that the user asked for.
func (a *app) keep(ctx context.Context, door *api, f execFlags, rep a2a.Report) error {
	if f.out != "" {
		if err := writeOut(f.out, rep.Files); err != nil {
			return err
		}
	}
	if f.receipt == "" || rep.Outcome == nil {
		return nil
	}
	var receipt json.RawMessage
	if err := door.do(ctx, "GET", "/v1/tasks/"+rep.Task+"/receipt", nil, &receipt); err != nil {
		return err
	}
	return durable.WriteFile(f.receipt, receipt, 0o644)
}

// writeOut puts files below dir and nowhere else, whatever their names say.
func writeOut(dir string, files []a2a.OutFile) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return failed("--out: %v", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return failed("--out: %v", err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	for _, f := range files {
		if parent := filepath.Dir(f.Path); parent != "." {
			if err := root.MkdirAll(parent, 0o755); err != nil {
				return failed("--out: %v", err)
			}
		}
		if err := root.WriteFile(f.Path, f.Content, 0o644); err != nil {
			return failed("--out: %v", err)
		}
	}
	return nil
}

// show prints how a run ended and turns it into the exit code.
func (a *app) show(rep a2a.Report) error {
	if a.json {
		a.print(rep)
	} else {
		if len(rep.Result) > 0 && string(rep.Result) != "null" {
			fmt.Fprintf(a.stdout, "result: %s\n", rep.Result)
		}
		fmt.Fprintln(a.stderr, summary(rep))
	}
	if code := exitOf(rep); code != exitOK {
		return exitError(code)
	}
	return nil
}

// exitOf is the exit code of a report.
func exitOf(rep a2a.Report) int {
	if rep.Status == a2a.Succeeded {
		return exitOK
	}
	if rep.Status == a2a.Denied {
		return exitDenied
	}
	if rep.Intent == nil && rep.Error != nil && a2a.ExitCode(rep.Error.Code) != exitFailed {
		return a2a.ExitCode(rep.Error.Code) // also from a node whose reports do not say so
	}
	if rep.ExitCode == 0 {
		return exitFailed
	}
	return rep.ExitCode
}

// summary is the one line that says what happened, where, and what held it.
func summary(rep a2a.Report) string {
	var b strings.Builder
	fmt.Fprintf(&b, "agenticraft: %s", rep.Status)
	if rep.Error != nil {
		fmt.Fprintf(&b, " (%s: %s)", rep.Error.Code, rep.Error.Message)
	}
	if rep.Intent != nil {
		fmt.Fprintf(&b, ", task %s on %s, %s", rep.Task, short(string(rep.Node)), rep.Sandbox)
		if rep.Tier != "" {
			fmt.Fprintf(&b, " %s", rep.Tier)
		}
		fmt.Fprintf(&b, ", %.0f ms", rep.Duration)
	}
	if len(rep.Truncated) > 0 {
		fmt.Fprintf(&b, "\nagenticraft: not all of it was kept: %s", strings.Join(rep.Truncated, ", "))
	}
	if len(rep.Enforced) > 0 {
		var held []string
		for _, limit := range sortedKeys(rep.Enforced) {
			held = append(held, limit+" by "+rep.Enforced[limit])
		}
		fmt.Fprintf(&b, "\nagenticraft: enforced: %s", strings.Join(held, ", "))
	}
	if rep.Intent != nil && rep.Outcome != nil {
		fmt.Fprintf(&b, "\nagenticraft: on record: intent %d, outcome %d", *rep.Intent, *rep.Outcome)
	}
	return b.String()
}

// short is enough of an ID for people to tell nodes apart.
func short(id string) string {
	if len(id) <= 12 {
		return id
	}
	return "…" + id[len(id)-8:]
}
