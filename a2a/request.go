package a2a

import (
	"errors"
	"fmt"
	"math"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/identity"
)

// Caps of an [Execution], in bytes. A whole request has at most
// [MaxRequestBytes], of which files take a third more in base64.
const (
	MaxCodeBytes  = 1 << 20
	MaxStdinBytes = 1 << 20
	MaxFilesBytes = 5 << 20 // all files together
	MaxFiles      = 256
	MaxPathBytes  = 1 << 10
	MaxArgs       = 256
	MaxArgBytes   = 64 << 10 // all arguments together
	maxRequire    = 16
	maxNetwork    = 1 << 10
	maxCPUPercent = 100_000
	maxProcesses  = 100_000
	maxTimeoutMS  = 7 * 24 * 3600 * 1000
)

var (
	wordPattern    = regexp.MustCompile(`^[a-z0-9][a-z0-9_+.-]{0,31}$`)
	runtimePattern = regexp.MustCompile(`^([a-z][a-z0-9-]{0,31}|(sha256:)?[0-9a-f]{64})$`)
	// requirable are the limits that Execution.Require may name; the sandbox
	// package has the same words.
	requirable = []string{"memory", "cpu_percent", "wall", "output", "file_size", "processes", "network", "filesystem", "syscalls"}
	// fenceLanguages are what people write behind a fence for what we call otherwise.
	fenceLanguages = map[string]string{"py": "python", "python3": "python", "star": "starlark", "bzl": "starlark", "js": "javascript", "bash": "sh", "shell": "sh"}
)

// NewRequest makes the request for an execution. It refuses what
// [DecodeExecution] would refuse.
func NewRequest(e Execution) (*sdk.SendMessageRequest, error) {
	for _, text := range append([]string{e.Code, e.Stdin}, e.Args...) {
		if !utf8.ValidString(text) {
			return nil, Errorf(CodeInvalidRequest, "code, stdin and arguments must be UTF-8")
		}
	}
	if err := e.check(); err != nil {
		return nil, err
	}
	data, err := looseJSON(e)
	if err != nil {
		return nil, Errorf(CodeInvalidRequest, "execution: %v", err)
	}
	return &sdk.SendMessageRequest{Message: sdk.NewMessage(sdk.MessageRoleUser, sdk.NewDataPart(data))}, nil
}

// DecodeExecution reads what a request asks to be run: one data part as the
// schema describes it, or one text part with exactly one fenced code block.
// Everything else is refused with an [*Error] that says what is wrong.
func DecodeExecution(req *sdk.SendMessageRequest) (Execution, error) {
	if req == nil || req.Message == nil || len(req.Message.Parts) != 1 || req.Message.Parts[0] == nil {
		return Execution{}, Errorf(CodeInvalidRequest, "the message must have exactly one part: a data part {language, code, …} or a text with one fenced code block")
	}
	var e Execution
	switch content := req.Message.Parts[0].Content.(type) {
	case sdk.Data:
		value := content.Value
		err := decodeLoose(value, &e)
		if errors.Is(err, errNotLoose) { // made by a Go program from values of its own
			if value, err = looseJSON(value); err == nil {
				e = Execution{}
				err = decodeLoose(value, &e)
			}
		}
		if err != nil {
			return Execution{}, Errorf(CodeInvalidRequest, "execution: %s", Clip(err.Error()))
		}
		// An empty program is a program; a missing one is a mistake.
		if given, _ := value.(map[string]any); given["code"] == nil {
			return Execution{}, Errorf(CodeInvalidRequest, "execution: no code")
		}
	case sdk.Text:
		var err *Error
		if e.Language, e.Code, err = fencedCode(string(content)); err != nil {
			return Execution{}, &Unclear{err}
		}
	default:
		return Execution{}, Errorf(CodeInvalidRequest, "the message's part must be data or text")
	}
	if err := e.check(); err != nil {
		return Execution{}, err
	}
	return e, nil
}

// Unclear is the error of a text in which no program was found: its sender can
// be asked for it. It unwraps to the [*Error] that says what is missing.
type Unclear struct{ Err *Error }

func (u *Unclear) Error() string { return u.Err.Error() }

func (u *Unclear) Unwrap() error { return u.Err }

func (e Execution) check() error {
	switch {
	case !wordPattern.MatchString(e.Language):
		return Errorf(CodeInvalidRequest, "language %.40q is not a language's name", e.Language)
	case len(e.Code) > MaxCodeBytes:
		return Errorf(CodeTooLarge, "code has %d bytes, at most %d are accepted", len(e.Code), MaxCodeBytes)
	case strings.ContainsRune(e.Code, 0):
		return Errorf(CodeInvalidRequest, "code holds a NUL")
	case len(e.Stdin) > MaxStdinBytes:
		return Errorf(CodeTooLarge, "stdin has %d bytes, at most %d are accepted", len(e.Stdin), MaxStdinBytes)
	case e.Runtime != "" && !runtimePattern.MatchString(e.Runtime):
		return Errorf(CodeInvalidRequest, "runtime %.80q is neither a runtime's name nor its digest", e.Runtime)
	case e.Sandbox != "" && !wordPattern.MatchString(e.Sandbox):
		return Errorf(CodeInvalidRequest, "sandbox %.40q is not a sandbox's name", e.Sandbox)
	case e.Network != "" && e.Network != "none" && !strings.HasPrefix(e.Network, "allow="):
		return Errorf(CodeInvalidRequest, "network must be none or allow=HOST:PORT,…")
	case len(e.Network) > maxNetwork:
		return Errorf(CodeTooLarge, "network has more than %d bytes", maxNetwork)
	case e.DataClass != "" && !wordPattern.MatchString(e.DataClass):
		return Errorf(CodeInvalidRequest, "data_class %.40q is not a class's name", e.DataClass)
	case len(e.Mandate) > maxMandateBytes:
		return Errorf(CodeTooLarge, "the mandate has more than %d bytes", maxMandateBytes)
	}
	if e.On != "" && e.On != "any" && e.On != "local" {
		if _, err := identity.ParseID(e.On); err != nil {
			return Errorf(CodeInvalidRequest, "on must be any, local or a node's peer ID")
		}
	}
	if err := e.Limits.check(); err != nil {
		return err
	}
	if err := checkArgs(e.Args); err != nil {
		return err
	}
	if len(e.Require) > maxRequire {
		return Errorf(CodeTooLarge, "require names more than %d limits", maxRequire)
	}
	for _, name := range e.Require {
		if !slices.Contains(requirable, name) {
			return Errorf(CodeInvalidRequest, "require: unknown limit %.40q (known: %s)", name, strings.Join(requirable, ", "))
		}
	}
	return checkFiles(e.Files)
}

func checkArgs(args []string) error {
	total := 0
	for _, arg := range args {
		if total += len(arg) + 1; strings.ContainsRune(arg, 0) {
			return Errorf(CodeInvalidRequest, "args: %.40q holds a NUL", arg)
		}
	}
	if len(args) > MaxArgs || total > MaxArgBytes {
		return Errorf(CodeTooLarge, "%d arguments of %d bytes, at most %d of %d bytes together are accepted", len(args), total, MaxArgs, MaxArgBytes)
	}
	return nil
}

func (l Limits) check() error {
	for _, limit := range []struct {
		name       string
		value, max int64
	}{
		{"memory_bytes", l.MemoryBytes, 1<<53 - 1},
		{"cpu_percent", int64(l.CPUPercent), maxCPUPercent},
		{"timeout_ms", l.TimeoutMS, maxTimeoutMS},
		{"output_bytes", l.OutputBytes, 1<<53 - 1},
		{"file_size_bytes", l.FileSizeBytes, 1<<53 - 1},
		{"processes", int64(l.Processes), maxProcesses},
	} {
		if limit.value < 0 || limit.value > limit.max {
			return Errorf(CodeInvalidRequest, "limits: %s is out of range (0 to %d)", limit.name, limit.max)
		}
	}
	return nil
}

func checkFiles(files []File) error {
	if len(files) > MaxFiles {
		return Errorf(CodeTooLarge, "%d files, at most %d are accepted", len(files), MaxFiles)
	}
	total, seen := 0, make(map[string]bool, len(files))
	for _, f := range files {
		if err := checkPath(f.Path); err != nil {
			return Errorf(CodeInvalidRequest, "files: path %.80q %v", f.Path, err)
		}
		if seen[f.Path] {
			return Errorf(CodeInvalidRequest, "files: path %.80q is given twice", f.Path)
		}
		seen[f.Path] = true
		if total += len(f.Content); total > MaxFilesBytes {
			return Errorf(CodeTooLarge, "files have more than %d bytes together", MaxFilesBytes)
		}
	}
	for _, f := range files {
		for dir := path.Dir(f.Path); dir != "."; dir = path.Dir(dir) {
			if seen[dir] {
				return Errorf(CodeInvalidRequest, "files: %.80q is both a file and a folder", dir)
			}
		}
	}
	return nil
}

func checkPath(p string) error {
	const maxName = 255 // bytes, of one folder or file name
	switch {
	case p == "" || p == ".":
		return fmt.Errorf("is empty")
	case len(p) > MaxPathBytes:
		return fmt.Errorf("is longer than %d bytes", MaxPathBytes)
	case !utf8.ValidString(p) || strings.ContainsFunc(p, func(r rune) bool {
		return r == '\\' || unicode.In(r, unicode.Cc, unicode.Bidi_Control, unicode.Zl, unicode.Zp)
	}):
		return fmt.Errorf("has a character that is not accepted")
	case path.Clean(p) != p || !filepath.IsLocal(p):
		return fmt.Errorf("is not a clean path inside the working folder")
	}
	for name := range strings.SplitSeq(p, "/") {
		if len(name) > maxName {
			return fmt.Errorf("has a name longer than %d bytes", maxName)
		}
	}
	return nil
}

// fencedCode finds the one block ```language … ``` in a text.
func fencedCode(text string) (language, code string, err *Error) {
	const fence = "```"
	if len(text) > math.MaxInt32 {
		return "", "", Errorf(CodeTooLarge, "text is too long")
	}
	var (
		body   strings.Builder
		inside bool
		blocks int
	)
	for line := range strings.Lines(text) {
		bare := strings.TrimRight(line, " \t\r\n")
		switch {
		case !inside && strings.HasPrefix(bare, fence):
			inside = true
			if blocks++; blocks > 1 {
				return "", "", Errorf(CodeInvalidRequest, "the text has more than one fenced code block")
			}
			info := strings.Fields(strings.TrimLeft(bare, "`"))
			if len(info) == 0 {
				return "", "", &Error{Code: CodeInvalidRequest, Message: "the fenced code block names no language", Hint: "write ```python behind the opening fence"}
			}
			language = strings.ToLower(info[0])
		case inside && bare == fence:
			inside = false
		case inside:
			body.WriteString(line)
		}
	}
	if blocks == 0 {
		return "", "", Errorf(CodeInvalidRequest, "the text has no fenced code block")
	}
	if inside {
		return "", "", Errorf(CodeInvalidRequest, "the fenced code block is not closed")
	}
	if body.Len() == 0 {
		return "", "", Errorf(CodeInvalidRequest, "the fenced code block is empty")
	}
	if name, ok := fenceLanguages[language]; ok {
		language = name
	}
	return language, body.String(), nil
}
