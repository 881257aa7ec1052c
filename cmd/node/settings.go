package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/internal/durable"
)

// settings is the user's file of contexts: which cluster the client commands
// speak to when nothing else says so.
type settings struct {
	Current  string                   `json:"current"`
	Contexts map[string]clientContext `json:"contexts"`
}

// clientContext is one cluster as a client sees it.
type clientContext struct {
	Server     string `json:"server"`
	APIKeyFile string `json:"api_key_file,omitempty"`
	AgentKey   string `json:"agent_key,omitempty"`
	Trust      string `json:"trust,omitempty"`
	CAFile     string `json:"ca_file,omitempty"`
	Login      bool   `json:"login,omitempty"` // the user logged in: the token is in a file of its own

	name string // of the context, "" if it is none of the file's
}

func (a *app) settingsFile() (string, error) {
	dir := a.env("XDG_CONFIG_HOME")
	if dir == "" {
		home := a.env("HOME")
		if home == "" {
			return "", failed("neither XDG_CONFIG_HOME nor HOME is set, so there is no place for contexts")
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "agenticraft", "contexts.json"), nil
}

func (a *app) loadSettings() (settings, error) {
	s := settings{Contexts: map[string]clientContext{}}
	name, err := a.settingsFile()
	if err != nil {
		return s, err
	}
	text, err := readSmall(name, maxSettingsFile)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("read contexts: %w", err)
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return s, failed("%s is not a file of contexts: %v", name, err)
	}
	return s, nil
}

func (a *app) saveSettings(s settings) error {
	name, err := a.settingsFile()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return fmt.Errorf("save contexts: %w", err)
	}
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("save contexts: %w", err)
	}
	return durable.WriteFile(name, append(text, '\n'), 0o600)
}

// current is the context in force: flags, then environment, then the file.
func (a *app) current() (clientContext, error) {
	var c clientContext
	s, err := a.loadSettings()
	if err != nil {
		return c, err
	}
	if found, ok := s.Contexts[s.Current]; ok {
		c, c.name = found, s.Current
	}
	if v := a.env("AGENTICRAFT_SERVER"); v != "" {
		c.Server = v
	}
	if a.server != "" {
		c.Server = a.server
	}
	if a.apiKeyFile != "" {
		c.APIKeyFile = a.apiKeyFile
	}
	if a.agentKey != "" {
		c.AgentKey = a.agentKey
	}
	if v := a.env("AGENTICRAFT_CA_FILE"); v != "" {
		c.CAFile = v
	}
	if a.caFile != "" {
		c.CAFile = a.caFile
	}
	if c.Server == "" {
		hint := "start one with: agenticraft dev (or give --server URL)"
		if len(s.Contexts) > 0 {
			hint = "agenticraft context use NAME (or give --server URL); there are: " + strings.Join(sortedKeys(s.Contexts), ", ")
		}
		return c, &a2a.Error{Code: "usage", Message: "no server to speak to", Hint: hint}
	}
	return c, nil
}

// apiKey is the API key in force, or the token of a login, or "".
func (a *app) apiKey(ctx context.Context, c clientContext) (string, error) {
	if a.apiKeyFile == "" {
		if key := a.env("AGENTICRAFT_API_KEY"); key != "" {
			return key, nil
		}
	}
	if c.APIKeyFile == "" {
		if c.Login {
			return a.loginToken(ctx, c.name)
		}
		return "", nil
	}
	text, err := readSmall(c.APIKeyFile, maxAPIKeyFile)
	if err != nil {
		return "", failed("the API key cannot be read: %v", err)
	}
	return strings.TrimSpace(string(text)), nil
}

func (a *app) contextCommand() *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "List the contexts", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			s, err := a.loadSettings()
			if err != nil {
				return err
			}
			if a.json {
				a.print(s)
				return nil
			}
			for _, name := range sortedKeys(s.Contexts) {
				mark := " "
				if name == s.Current {
					mark = "*"
				}
				fmt.Fprintf(a.stdout, "%s %-12s %s\n", mark, name, s.Contexts[name].Server)
			}
			return nil
		},
	}
	use := &cobra.Command{
		Use: "use NAME", Short: "Make a context the current one", Args: exactArgs("NAME"),
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := a.loadSettings()
			if err != nil {
				return err
			}
			if _, ok := s.Contexts[args[0]]; !ok {
				return failed("no context %q; there are: %s", args[0], strings.Join(sortedKeys(s.Contexts), ", "))
			}
			s.Current = args[0]
			if err := a.saveSettings(s); err != nil {
				return err
			}
			if a.json {
				a.print(s)
			}
			return nil
		},
	}
	return group("context", "Choose the cluster that client commands speak to", list, use)
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
