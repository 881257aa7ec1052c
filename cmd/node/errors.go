package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/agenticraft/node/a2a"
)

// Exit codes of the command line's contract. Those of a program that was run
// are in package agent.
const (
	exitOK          = a2a.ExitOK
	exitFailed      = a2a.ExitFailed
	exitUsage       = a2a.ExitUsage
	exitDenied      = a2a.ExitDenied
	exitUnavailable = a2a.ExitUnavailable
	exitUnverified  = a2a.ExitUnverified
)

// exitFor is the exit code of an error's code, the command line's own among them.
func exitFor(code string) int {
	switch code {
	case "usage":
		return exitUsage
	case "unverified":
		return exitUnverified
	}
	return a2a.ExitCode(code)
}

// exitError is an exit code that goes without an error message, because the
// command has printed all there is to say.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit %d", int(e)) }

func usage(format string, args ...any) error {
	return &a2a.Error{Code: "usage", Message: fmt.Sprintf(format, args...), Hint: "agenticraft help shows the commands, and --help after a command its flags"}
}

func failed(format string, args ...any) error {
	return &a2a.Error{Code: "failed", Message: fmt.Sprintf(format, args...)}
}

// finish prints err, if any, as the contract says, and gives the exit code.
func (a *app) finish(err error) int {
	if err == nil {
		return exitOK
	}
	if code := exitError(0); errors.As(err, &code) {
		return int(code)
	}
	e := new(a2a.Error)
	switch {
	case errors.As(err, &e):
	case errors.Is(err, context.Canceled):
		e = &a2a.Error{Code: "cancelled", Message: "interrupted"}
	case strings.HasPrefix(err.Error(), "unknown command"):
		errors.As(usage("%v", err), &e)
	default:
		e = &a2a.Error{Code: "failed", Message: err.Error()}
	}
	if a.json {
		a.print(map[string]any{"error": map[string]string{"code": e.Code, "message": e.Message, "hint": e.Hint}})
	} else {
		fmt.Fprintf(a.stderr, "agenticraft: error: %s\n", forTerminal(e.Message))
		if e.Hint != "" {
			fmt.Fprintf(a.stderr, "agenticraft: hint: %s\n", e.Hint)
		}
	}
	return exitFor(e.Code)
}

// forTerminal is a text that may repeat what a file or a node holds, without what
// a terminal would obey.
func forTerminal(text string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, text)
}

// print writes v as the one JSON document of a --json answer.
func (a *app) print(v any) {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		fmt.Fprintf(a.stderr, "agenticraft: error: %v\n", err)
	}
	_, _ = a.stdout.Write(text.Bytes()) // the output says at the end what it could not print
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage("%s takes no argument %q", cmd.CommandPath(), args[0])
	}
	return nil
}

// exactArgs wants the named arguments, all of them.
func exactArgs(names ...string) cobra.PositionalArgs { return firstArgs(len(names), names...) }

// firstArgs are like exactArgs, of which only the first few must be given.
func firstArgs(needed int, names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < needed {
			return usage("%s needs %s", cmd.CommandPath(), strings.Join(names[len(args):needed], " and "))
		}
		if len(args) > len(names) {
			return usage("%s takes no argument %q", cmd.CommandPath(), args[len(names)])
		}
		return nil
	}
}

// group is a command that only has subcommands.
func group(use, short string, subs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, RunE: onlyGroups}
	cmd.AddCommand(subs...)
	return cmd
}

// onlyGroups is what a command does that does nothing by itself.
func onlyGroups(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage("unknown command %q for %q", args[0], cmd.CommandPath())
	}
	return cmd.Help()
}
