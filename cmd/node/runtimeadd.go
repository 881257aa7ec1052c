package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/runtime"
)

// runtimeFlags are the flags of `runtime add`.
type runtimeFlags struct {
	name, interpreter, language string
	requirements, index         string
	links                       []string
}

func (a *app) runtimeAddCommand(open func() (*runtime.Store, error)) *cobra.Command {
	var f runtimeFlags
	cmd := &cobra.Command{
		Use:   "add python|node|sh|DIR|IMAGE.tar|FILE.wasm",
		Short: "Make a runtime of an interpreter of this machine, a tree, an image or a WebAssembly module",
		Long: `Make a runtime, which sandboxes then offer to programs.

python, node and sh copy the host's interpreter with all that it needs: nothing of
the host itself is shown to a program. DIR and IMAGE.tar are trees that hold an
interpreter: a folder, a root file system as tar, an image that "docker save" wrote
or in an OCI layout. FILE.wasm is a module for WASI preview 1, a program of its own
or, with --language, one that runs programs of that language.

With --with, packages are installed into a Python runtime: once, here, from wheels,
never when a program runs. Give such a runtime a name; runs ask for it by exec
--runtime NAME.`,
		Args: exactArgs("python|node|sh|DIR|IMAGE.tar|FILE.wasm"),
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := open()
			if err != nil {
				return err
			}
			r, err := a.addRuntime(cmd, store, f, args[0])
			if err != nil {
				return runtimeFault(err)
			}
			if a.json {
				a.print(r)
				return nil
			}
			fmt.Fprintf(a.stdout, "%s  %s %s, %.1f MiB\n", r.Digest, strings.Join(r.Languages, ","), r.Version, float64(r.Bytes)/(1<<20))
			if r.Module != "" {
				fmt.Fprintf(a.stdout, "module sha256:%s\n", r.Module)
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.name, "name", "", "name by which runs ask for it (default: it is the default of its language)")
	flags.StringVar(&f.interpreter, "interpreter", "", "path of the interpreter to copy (default: search)")
	flags.StringVar(&f.language, "language", "", "language whose programs the tree or FILE.wasm runs")
	flags.StringVar(&f.requirements, "with", "", "file of Python requirements to install")
	flags.StringArrayVar(&f.links, "find-links", nil, "folder of wheels for --with (may be repeated)")
	flags.StringVar(&f.index, "index-url", "", "package index for --with (default: only the wheels of --find-links)")
	return cmd
}

func (a *app) addRuntime(cmd *cobra.Command, store *runtime.Store, f runtimeFlags, what string) (runtime.Runtime, error) {
	progress := func(line string) { fmt.Fprintf(a.stderr, "agenticraft: %s\n", line) }
	host := runtime.AddConfig{
		Name: f.name, Interpreter: f.interpreter, Progress: progress,
		Packages: runtime.Packages{Requirements: f.requirements, FindLinks: f.links, Index: f.index},
	}
	if f.requirements != "" && what != "python" {
		return runtime.Runtime{}, usage("--with is for runtime add python")
	}
	switch {
	case what == "python":
		return store.AddPython(cmd.Context(), host)
	case what == "node", what == "javascript":
		return store.AddNode(cmd.Context(), host)
	case what == "sh":
		return store.AddShell(cmd.Context(), host)
	case strings.HasSuffix(what, ".wasm"):
		return store.AddModule(cmd.Context(), runtime.AddModuleConfig{File: what, Name: f.name, Language: f.language, Progress: progress})
	}
	if _, err := os.Stat(what); err != nil {
		return runtime.Runtime{}, usage("runtime add knows python, node, sh, a folder, an archive and FILE.wasm; %q is none of them", what)
	}
	return store.AddTree(cmd.Context(), runtime.AddTreeConfig{
		Path: what, Name: f.name, Language: f.language, Interpreter: f.interpreter, Progress: progress,
	})
}

// runtimeFault is err as the command line tells it.
func runtimeFault(err error) error {
	switch {
	case errors.Is(err, sandbox.ErrSpec):
		return &a2a.Error{Code: "usage", Message: strings.TrimPrefix(err.Error(), sandbox.ErrSpec.Error()+": ")}
	case errors.Is(err, runtime.ErrNotFound):
		return &a2a.Error{Code: "failed", Message: err.Error(), Hint: "agenticraft runtime list shows what there is"}
	}
	return err
}
