package main

import (
	"github.com/spf13/cobra"

	"github.com/agenticraft/node/identity"
)

func (a *app) whoamiCommand() *cobra.Command {
	return &cobra.Command{
		Use: "whoami", Short: "Show who the node says you are: principal, tenant, roles", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var me identity.Principal
			if err := a.fetch(cmd.Context(), "/v1/whoami", &me); err != nil {
				return err
			}
			a.print(me)
			return nil
		},
	}
}
