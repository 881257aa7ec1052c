package wasm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/jail"
	"github.com/agenticraft/node/sandbox/worker/protocol"
)

// Limits of a compilation. What it takes grows with the module.
const (
	compileWall   = 60 * time.Second
	compileMemory = 256 << 20 // bytes, and compileFactor times the module's size
	compileFactor = 40
	maxMemory     = 3 << 30   // bytes
	maxCode       = 512 << 20 // bytes of compiled code
)

// badModule: the module is no program. It is the caller's fault, not ours.
type badModule struct {
	text  string
	usage sandbox.Usage
}

func (e *badModule) Error() string { return e.text }

// codePath is how the compiler names what it made, see wazero's cache.
var codePath = regexp.MustCompile(`^wazero-[A-Za-z0-9.+-]{1,60}$`).MatchString

// compile has the module of a stage compiled in a jail that sees nothing else,
// and takes the code. Where a module takes over the compiler, the code is bad,
// for those who run that module.
func (c *cache) compile(ctx context.Context, stage string, size int64) error {
	ctx, cancel := context.WithTimeout(ctx, compileWall)
	defer cancel()
	memory := min(compileMemory+compileFactor*size, maxMemory)
	j, err := c.cfg.Spawner.Start(ctx, jail.Profile{
		ID:   fmt.Sprintf("wasm-compile-%d", c.serial.Add(1)),
		Root: stage,
		Argv: []string{"/jail", "wasm-compile"},
		Env:  []string{"GOMAXPROCS=2", "GOTRACEBACK=none", "GOMEMLIMIT=" + strconv.FormatInt(memory*3/4, 10)},
		Limits: sandbox.Limits{
			Memory: memory, CPUPercent: 100, Wall: compileWall, FileSize: maxCode, Files: 16, Processes: 32,
		},
		Worker: true,
	})
	if err != nil {
		return fmt.Errorf("compile module: %w", err)
	}
	defer j.Release()
	report, err := ask(ctx, j)
	if err == nil && report.Status != "ok" {
		return &badModule{text: strings.ToValidUTF8(report.Message, "\uFFFD"), usage: sandbox.Usage{CPU: report.CPU, PeakMemory: report.Memory}}
	}
	j.Kill() // it has said all
	wait, stop := context.WithTimeout(context.WithoutCancel(ctx), compileWall)
	defer stop()
	exit, waitErr := j.Wait(wait)
	switch {
	case waitErr != nil:
		return fmt.Errorf("compile module: %w", waitErr)
	case err == nil:
		return takeCode(j.WorkDir(), filepath.Join(stage, codeName))
	case exit.OOM:
		return &badModule{text: fmt.Sprintf("the module takes more than %d bytes of memory to compile", memory), usage: exit.Usage}
	case ctx.Err() != nil || exit.CPULimit:
		return &badModule{text: fmt.Sprintf("the module takes longer than %v to compile", compileWall), usage: exit.Usage}
	}
	words, _ := io.ReadAll(io.LimitReader(j.Stderr(), 1024)) // what it says is only a help
	if strings.Contains(string(words), "out of memory") || strings.Contains(string(words), "cannot allocate") {
		return &badModule{text: fmt.Sprintf("the module takes more than %d bytes of memory to compile", memory), usage: exit.Usage}
	}
	c.cfg.Log.ErrorContext(ctx, "the module compiler failed", "err", err, "exit", exit.Code, "signal", exit.Signal, "stderr", string(words))
	return &badModule{text: "the module breaks the compiler", usage: exit.Usage}
}

// ask waits for the compiler's report.
func ask(ctx context.Context, j *jail.Jail) (protocol.Report, error) {
	control := j.Control()
	defer context.AfterFunc(ctx, func() { _ = control.SetDeadline(time.Unix(1, 0)) })()
	if err := control.SetDeadline(time.Now().Add(compileWall)); err != nil {
		return protocol.Report{}, err
	}
	_, payload, err := protocol.Read(control, protocol.Done)
	if err != nil {
		return protocol.Report{}, err
	}
	return protocol.ParseReport(payload)
}

// takeCode copies what the compiler made out of its working folder, in which
// nothing moves any more: one folder with one regular file.
func takeCode(work *os.File, to string) error {
	root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", work.Fd()))
	if err != nil {
		return fmt.Errorf("take compiled code: %w", err)
	}
	defer func() { _ = root.Close() }() // only read
	folder, err := only(root, codeName)
	if err != nil {
		return err
	}
	file, err := only(root, codeName+"/"+folder)
	if err != nil {
		return err
	}
	if !codePath(folder) || !isDigest(file) {
		return fmt.Errorf("take compiled code: the compiler left %.60q/%.80q", folder, file)
	}
	name := codeName + "/" + folder + "/" + file
	if info, err := root.Lstat(name); err != nil || !info.Mode().IsRegular() {
		return errors.Join(fmt.Errorf("take compiled code: %.80q is no regular file", name), err)
	}
	in, err := root.Open(name)
	if err != nil {
		return fmt.Errorf("take compiled code: %w", err)
	}
	defer func() { _ = in.Close() }() // only read
	if err := os.MkdirAll(filepath.Join(to, folder), 0o755); err != nil {
		return fmt.Errorf("take compiled code: %w", err)
	}
	_, err = copyTo(filepath.Join(to, folder, file), in, maxCode)
	return err
}

// only is the name of the one entry of a folder.
func only(root *os.Root, dir string) (string, error) {
	f, err := root.Open(dir)
	if err != nil {
		return "", fmt.Errorf("take compiled code: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	names, err := f.Readdirnames(2)
	if err != nil || len(names) != 1 {
		return "", errors.Join(fmt.Errorf("take compiled code: %s has not one entry", dir), err)
	}
	return names[0], nil
}
