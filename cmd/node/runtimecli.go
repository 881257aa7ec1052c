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
				fmt.Fprintf(a.stdout, "%s  %-10s %-10s %-10s %6.1f MiB  %d files\n", r.Digest[:12], r.Name, strings.Join(r.Languages, ","), r.Version, float64(r.Bytes)/(1<<20), r.Files)
				if r.Module != "" {
					fmt.Fprintf(a.stdout, "%14smodule sha256:%s\n", "", r.Module)
				}
			}
			return nil
		},
	}
	add := a.runtimeAddCommand(open)
	rm := &cobra.Command{
		Use: "rm NAME|DIGEST", Short: "Remove a runtime", Args: exactArgs("NAME|DIGEST"),
		RunE: func(_ *cobra.Command, args []string) error {
			store, err := open()
			if err != nil {
				return err
			}
			if err := store.Remove(args[0]); err != nil {
				return runtimeFault(err)
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
