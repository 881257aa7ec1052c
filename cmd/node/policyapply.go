package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/authz"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/internal/durable"
	"github.com/agenticraft/node/registry"
)

// policySignature is the file beside a policy's files that says who stands for
// them.
const policySignature = "policy.sig"

func layerOf(additions bool) string {
	if additions {
		return registry.LayerAdditions
	}
	return registry.LayerBase
}

func (a *app) policySignCommand() *cobra.Command {
	var additions bool
	cmd := &cobra.Command{
		Use: "sign DIR --agent-key FILE", Short: "Sign a policy, so that others may apply it", Args: exactArgs("DIR"),
		Long: `Sign a policy's files, into DIR/` + policySignature + `. Whoever may apply a policy then shows that the
signer, who must be allowed to change the policy, too, stands for what is in it.`,
		RunE: func(_ *cobra.Command, args []string) error {
			if a.agentKey == "" {
				return usage("a policy is signed with an agent's key: give --agent-key FILE")
			}
			modules, err := readPolicy(args[0])
			if err != nil {
				return err
			}
			key, err := identity.Load(a.agentKey)
			if err != nil {
				return err
			}
			digest := authz.Digest(modules)
			sig := registry.SignBundle(key, layerOf(additions), digest)
			text, err := json.Marshal(sig)
			if err != nil {
				return err
			}
			if err := durable.WriteFile(filepath.Join(args[0], policySignature), append(text, '\n'), 0o644); err != nil {
				return err
			}
			if a.json {
				a.print(map[string]any{"digest": digest, "author": sig})
				return nil
			}
			fmt.Fprintf(a.stdout, "policy %s signed by %s\n", digest, sig.By)
			return nil
		},
	}
	cmd.Flags().BoolVar(&additions, "additions", false, "for the operators' additions, not for the base")
	return cmd
}

// readSignature reads who stands for a policy's folder; nil if nobody does.
func readSignature(dir, layer, digest string) (*registry.BundleSignature, error) {
	name := filepath.Join(dir, policySignature)
	if _, err := os.Lstat(name); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	text, err := readSmall(name, 4<<10)
	if err != nil {
		return nil, err
	}
	var sig registry.BundleSignature
	if err := json.Unmarshal(text, &sig); err != nil {
		return nil, failed("%s is no signature: %v", policySignature, err)
	}
	if !sig.Holds(layer, digest) {
		return nil, &a2a.Error{Code: "unverified", Message: policySignature + " does not hold: the files, or the layer, are not those that were signed", Hint: "sign them again: agenticraft policy sign"}
	}
	return &sig, nil
}

func (a *app) policyApplyCommand() *cobra.Command {
	var additions, rollback bool
	cmd := &cobra.Command{
		Use: "apply (DIR | --rollback)", Short: "Put a policy in force on all nodes, or the one before it again", Args: firstArgs(0, "DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (len(args) == 1) == rollback {
				return usage("policy apply needs either DIR or --rollback")
			}
			p, err := a.proposer(cmd.Context())
			if err != nil {
				return err
			}
			body, err := p.policy(cmd.Context(), layerOf(additions), args)
			if err != nil {
				return err
			}
			out, err := propose(cmd.Context(), p, audit.KindPolicy, body)
			if err != nil {
				return err
			}
			change := out.Policy
			switch {
			case change == nil:
				return failed("the node does not say what became of the policy; look at: agenticraft policy show")
			case !change.Active:
				return &a2a.Error{Code: "failed", Message: "the log has the policy, but this node keeps the one before: " + change.Error}
			case a.json:
				a.print(change)
			default:
				fmt.Fprintf(a.stdout, "policy %s is in force instead of %s\n", change.Digest, change.Before)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&rollback, "rollback", false, "apply the policy that was in force before")
	cmd.Flags().BoolVar(&additions, "additions", false, "change the operators' additions, not the base")
	return cmd
}

// policy words the change to the policy in a folder or, without one, to the
// policy before.
func (p *proposer) policy(ctx context.Context, layer string, dir []string) (registry.PolicyBody, error) {
	body := registry.PolicyBody{Action: registry.Apply, Layer: layer}
	var now policyView
	if err := p.door.do(ctx, "GET", "/v1/policy", nil, &now); err != nil {
		return body, err
	}
	body.Before = now.Before[layer]
	var modules map[string]string
	var err error
	if len(dir) == 1 {
		if modules, err = readPolicy(dir[0]); err != nil {
			return body, err
		}
		if body.Author, err = readSignature(dir[0], layer, authz.Digest(modules)); err != nil {
			return body, err
		}
	} else {
		var before policyBefore
		if err := p.door.do(ctx, "GET", "/v1/policy/before?layer="+layer, nil, &before); err != nil {
			return body, err
		}
		modules = before.Modules
	}
	body.Digest = authz.Digest(modules)
	if len(modules) > 0 {
		body.Bundle, _, err = packed(modules)
	}
	return body, err
}
