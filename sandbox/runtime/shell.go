package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/agenticraft/node/sandbox"
)

// tools are what a shell's programs are made of: POSIX's utilities that work on
// text and files, and a few that everybody has. Those that the machine lacks are
// left out.
var tools = []string{
	"[", "awk", "base32", "base64", "basename", "bc", "cat", "chmod", "cksum", "cmp", "comm", "cp", "csplit", "cut", "date",
	"dd", "diff", "dirname", "du", "echo", "egrep", "env", "expand", "expr", "factor", "false", "fgrep", "find", "fmt", "fold",
	"getopt", "grep", "gzip", "gunzip", "head", "hexdump", "iconv", "id", "join", "jq", "link", "ln", "ls", "md5sum", "mkdir", "mkfifo",
	"mktemp", "mv", "nice", "nl", "nproc", "numfmt", "od", "paste", "pathchk", "pr", "printenv", "printf", "pwd", "readlink",
	"realpath", "rev", "rm", "rmdir", "sed", "seq", "sha1sum", "sha256sum", "sha512sum", "shuf", "sleep", "sort", "split", "stat",
	"stdbuf", "sum", "sync", "tac", "tail", "tar", "tee", "test", "timeout", "touch", "tr", "true", "truncate", "tsort",
	"uname", "unexpand", "uniq", "unlink", "wc", "xargs", "xz", "yes", "zcat",
}

// needed are those without which a shell program cannot come in.
var needed = []string{"head", "cat"}

// AddShell copies the host's POSIX shell and its usual tools into the store and
// returns the runtime.
func (s *Store) AddShell(ctx context.Context, cfg AddConfig) (Runtime, error) {
	shell, err := findShell(cfg.Interpreter)
	if err != nil {
		return Runtime{}, err
	}
	tell := orSilent(cfg.Progress)
	tell("copying the shell " + shell + " and its tools")
	return s.add(ctx, recipe{
		draft: Runtime{Name: cfg.Name, Languages: []string{"sh"}, Version: filepath.Base(shell)},
		fill: func(stage string, r *Runtime) error {
			t, err := openTree(ctx, stage)
			if err != nil {
				return err
			}
			defer t.close()
			r.Argv = []string{"/bin/sh"}
			if err := t.copyFile(shell, "/bin/sh", 0o755); err != nil {
				return err
			}
			objects := []string{shell}
			for _, tool := range tools {
				file, err := executable(tool)
				if errors.Is(err, fs.ErrNotExist) {
					continue
				}
				if err != nil {
					return err
				}
				if err := t.copyFile(file, "/usr/bin/"+tool, 0o755); err != nil {
					return err
				}
				objects = append(objects, file)
			}
			return t.copyLibraries(objects)
		},
		progress: tell,
	})
}

// findShell is the file of a POSIX shell: dash before all others, for it starts
// in a quarter of the time of bash.
func findShell(name string) (string, error) {
	for _, tool := range needed {
		if _, err := executable(tool); err != nil {
			return "", fmt.Errorf("%w: no %s on this machine; run: apt-get install coreutils", sandbox.ErrUnavailable, tool)
		}
	}
	candidates := []string{"dash", "sh", "bash"}
	if name != "" {
		candidates = []string{name}
	}
	for _, c := range candidates {
		if file, err := executable(c); err == nil {
			return file, nil
		}
	}
	return "", fmt.Errorf("%w: no shell on this machine; run: apt-get install dash", sandbox.ErrUnavailable)
}
