package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/runtime"
)

// runtimeFlags are the flags of `runtime add`.
type runtimeFlags struct {
	name, interpreter, language string
}

func (a *app) runtimeAddCommand(open func() (*runtime.Store, error)) *cobra.Command {
	var f runtimeFlags
	cmd := &cobra.Command{
		Use:   "add python|FILE.wasm",
		Short: "Make a runtime of an interpreter of this machine or of a WebAssembly module",
		Long: `Make a runtime, which sandboxes then offer to programs.

python copies the host's interpreter and library: nothing of the host itself is
shown to a program. FILE.wasm is a module for WASI preview 1, a program of its own
or, with --language, one that runs programs of that language.`,
		Args: exactArgs("python|FILE.wasm"),
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
	flags.StringVar(&f.language, "language", "", "language whose programs FILE.wasm runs")
	return cmd
}

func (a *app) addRuntime(cmd *cobra.Command, store *runtime.Store, f runtimeFlags, what string) (runtime.Runtime, error) {
	progress := func(line string) { fmt.Fprintf(a.stderr, "agenticraft: %s\n", line) }
	switch {
	case what == "python":
		return store.AddPython(cmd.Context(), runtime.AddConfig{Name: f.name, Interpreter: f.interpreter, Progress: progress})
	case strings.HasSuffix(what, ".wasm"):
		return store.AddModule(cmd.Context(), runtime.AddModuleConfig{File: what, Name: f.name, Language: f.language, Progress: progress})
	}
	return runtime.Runtime{}, usage("runtime add knows python and FILE.wasm, not %q", what)
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
