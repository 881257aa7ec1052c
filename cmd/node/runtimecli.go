package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/agenticraft/node/sandbox/runtime"
)

func (a *app) runtimeCommand() *cobra.Command {
	var dir string
	open := func() (*runtime.Store, error) {
		if dir == "" {
			d, err := a.runtimesDir()
			if err != nil {
				return nil, err
			}
			dir = d
		}
		return runtime.Open(dir)
	}
	list := &cobra.Command{
		Use: "list", Short: "List language runtimes", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			store, err := open()
			if err != nil {
				return err
			}
			all, err := store.List()
			if err != nil {
				return err
			}
			if a.json {
				a.print(map[string]any{"runtimes": all})
				return nil
			}
			for _, r := range all {
				fmt.Fprintf(a.stdout, "%s  %-8s %-10s %4d MiB  %d files\n", r.Digest[:12], strings.Join(r.Languages, ","), r.Version, r.Bytes>>20, r.Files)
			}
			return nil
		},
	}
	var interpreter string
	add := &cobra.Command{
		Use: "add python", Short: "Copy the host's interpreter and library into a runtime of their own", Args: exactArgs("python"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] != "python" {
				return usage("runtime add knows python, not %q", args[0])
			}
			store, err := open()
			if err != nil {
				return err
			}
			r, err := store.AddPython(cmd.Context(), runtime.AddConfig{
				Interpreter: interpreter,
				Progress:    func(line string) { fmt.Fprintf(a.stderr, "agenticraft: %s\n", line) },
			})
			if err != nil {
				return err
			}
			if a.json {
				a.print(r)
				return nil
			}
			fmt.Fprintf(a.stdout, "%s  python %s, %d MiB\n", r.Digest, r.Version, r.Bytes>>20)
			return nil
		},
	}
	add.Flags().StringVar(&interpreter, "interpreter", "", "path of the interpreter (default: search)")
	rm := &cobra.Command{
		Use: "rm DIGEST", Short: "Remove a runtime", Args: exactArgs("DIGEST"),
		RunE: func(_ *cobra.Command, args []string) error {
			store, err := open()
			if err != nil {
				return err
			}
			if err := store.Remove(args[0]); err != nil {
				return err
			}
			if a.json {
				a.print(map[string]string{"removed": args[0]})
			}
			return nil
		},
	}
	cmd := group("runtime", "Manage language runtimes", list, add, rm)
	cmd.PersistentFlags().StringVar(&dir, "runtimes", "", "folder of runtimes (else AGENTICRAFT_RUNTIMES, else the user's cache)")
	return cmd
}

// runtimesDir is where dev's nodes and the runtime command keep runtimes: one
// tree for all of the user's nodes.
func (a *app) runtimesDir() (string, error) {
	if dir := a.env("AGENTICRAFT_RUNTIMES"); dir != "" {
		return dir, nil
	}
	base := a.env("XDG_CACHE_HOME")
	if base == "" {
		home := a.env("HOME")
		if home == "" {
			base = filepath.Join(os.TempDir(), fmt.Sprintf("agenticraft-%d", os.Getuid()))
		} else {
			base = filepath.Join(home, ".cache")
		}
	}
	return filepath.Join(base, "agenticraft", "runtimes"), nil
}
