package main

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/authz/destination"
	"github.com/agenticraft/node/registry"
)

// ceilingFlags are a tenant's ceiling as the flags give it: what was not given
// stays as it was.
type ceilingFlags struct {
	languages, sandboxes, network, classes, vouchers []string
	tier, memory, output, fileSize, code             string
	timeout                                          time.Duration
	cpu, processes                                   int
	none                                             bool
}

func (f *ceilingFlags) define(flags *pflag.FlagSet) {
	flags.StringSliceVar(&f.network, "network", nil, "HOST:PORT,… that its runs may reach; *.DOMAIN and * are patterns; none takes them away")
	flags.StringSliceVar(&f.languages, "languages", nil, "the only languages it may run; any")
	flags.StringSliceVar(&f.sandboxes, "sandboxes", nil, "the only sandboxes it may use; any")
	flags.StringSliceVar(&f.classes, "data-classes", nil, "the only classes of data it may run on; any")
	flags.StringVar(&f.tier, "tier", "", "the weakest sandbox tier, T1 (strongest) to T4, that may run its code; any")
	flags.StringVar(&f.memory, "memory", "", "most memory of a run, such as 256MiB; any")
	flags.StringVar(&f.output, "output", "", "most output of a run; any")
	flags.StringVar(&f.fileSize, "file-size", "", "largest file of a run; any")
	flags.StringVar(&f.code, "code", "", "largest program; any")
	flags.DurationVar(&f.timeout, "timeout", 0, "longest run; 0: any")
	flags.IntVar(&f.cpu, "cpu", 0, "most CPU of a run, in percent of one core; 0: any")
	flags.IntVar(&f.processes, "processes", 0, "most processes of a run; 0: any")
	flags.StringSliceVar(&f.vouchers, "vouchers", nil, "the only nodes that may speak for its people who have no key: peer IDs, none, or any")
	flags.BoolVar(&f.none, "no-ceiling", false, "take all ceilings of its own away first")
}

var ceilingNames = []string{
	"network", "languages", "sandboxes", "data-classes", "tier", "memory", "output", "file-size", "code", "timeout", "cpu", "processes", "vouchers", "no-ceiling",
}

func (f *ceilingFlags) given(flags *pflag.FlagSet) bool {
	return slices.ContainsFunc(ceilingNames, flags.Changed)
}

// apply changes a tenant's row to what the flags say.
func (f *ceilingFlags) apply(flags *pflag.FlagSet, t registry.Tenant) (registry.TenantBody, error) {
	var c registry.Ceiling
	if t.Ceiling != nil && !f.none {
		c = *t.Ceiling
	}
	list := func(name string, given []string, nothing string, to *[]string) {
		if !flags.Changed(name) {
			return
		}
		if *to = given; slices.Equal(given, []string{nothing}) {
			*to = nil
		}
	}
	list("languages", f.languages, "any", &c.Languages)
	list("sandboxes", f.sandboxes, "any", &c.Sandboxes)
	list("data-classes", f.classes, "any", &c.DataClasses)
	list("network", f.network, "none", &c.Network)
	list("vouchers", f.vouchers, "any", &t.Vouchers)
	for i, text := range c.Network {
		pattern, err := destination.ParsePattern(text)
		if err != nil {
			return registry.TenantBody{}, usage("--network: %v", err)
		}
		c.Network[i] = pattern
	}
	if flags.Changed("tier") {
		if c.Tier = f.tier; f.tier == "any" {
			c.Tier = ""
		}
	}
	code := int64(c.CodeBytes)
	for _, size := range []struct {
		name, text string
		to         *int64
	}{{"memory", f.memory, &c.MemoryBytes}, {"output", f.output, &c.OutputBytes}, {"file-size", f.fileSize, &c.FileSizeBytes}, {"code", f.code, &code}} {
		if !flags.Changed(size.name) {
			continue
		}
		*size.to = 0
		if size.text != "any" {
			n, err := parseBytes(size.text)
			if err != nil {
				return registry.TenantBody{}, usage("--%s %q: %v", size.name, size.text, err)
			}
			*size.to = n
		}
	}
	c.CodeBytes = int(code)
	if flags.Changed("timeout") {
		c.TimeoutMS = f.timeout.Milliseconds()
	}
	if flags.Changed("cpu") {
		c.CPUPercent = f.cpu
	}
	if flags.Changed("processes") {
		c.Processes = f.processes
	}
	body := registry.TenantBody{Action: registry.Limit, Name: t.Name, Vouchers: t.Vouchers, Ceiling: &c}
	return body, nil
}

func (a *app) tenantCommand() *cobra.Command {
	return group("tenant", "Manage tenants", a.tenantCreateCommand(), a.listing("List tenants", "/v1/tenants", "name"), a.tenantSetCommand())
}

func (a *app) tenantCreateCommand() *cobra.Command {
	var f ceilingFlags
	create := &cobra.Command{
		Use: "create NAME", Short: "Create a tenant, with a ceiling if you like", Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := a.proposer(cmd.Context())
			if err != nil {
				return err
			}
			body := registry.TenantBody{Name: args[0]}
			if f.given(cmd.Flags()) {
				if body, err = f.apply(cmd.Flags(), registry.Tenant{Name: args[0]}); err != nil {
					return err
				}
			}
			body.Action = registry.Create
			if _, err := propose(cmd.Context(), p, audit.KindTenant, body); err != nil {
				return err
			}
			return a.printTenant(cmd.Context(), p, args[0])
		},
	}
	f.define(create.Flags())
	return create
}

func (a *app) tenantSetCommand() *cobra.Command {
	var suspend, resume bool
	var keep string
	var f ceilingFlags
	set := &cobra.Command{
		Use: "set NAME (--suspend | --resume | ceilings…)", Short: "Suspend a tenant, let it work again, or set the most it may be allowed", Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			limit := f.given(cmd.Flags())
			if suspend && resume || !suspend && !resume && !limit && keep == "" {
				return usage("tenant set needs --suspend, --resume, --keep-evidence or a ceiling, such as --network or --memory")
			}
			hours, err := evidenceHours(keep)
			if err != nil {
				return err
			}
			p, err := a.proposer(cmd.Context())
			if err != nil {
				return err
			}
			if limit {
				t, err := p.tenantRow(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				body, err := f.apply(cmd.Flags(), t)
				if err != nil {
					return err
				}
				if _, err := propose(cmd.Context(), p, audit.KindTenant, body); err != nil {
					return err
				}
			}
			if keep != "" {
				if _, err := propose(cmd.Context(), p, audit.KindTenant, registry.TenantBody{Action: registry.Retain, Name: args[0], EvidenceHours: hours}); err != nil {
					return err
				}
			}
			if suspend || resume {
				if _, err := propose(cmd.Context(), p, audit.KindTenant, registry.TenantBody{Action: registry.Set, Name: args[0], Suspended: suspend}); err != nil {
					return err
				}
			}
			return a.printTenant(cmd.Context(), p, args[0])
		},
	}
	set.Flags().BoolVar(&suspend, "suspend", false, "refuse its people and cancel what it runs, on every node")
	set.Flags().BoolVar(&resume, "resume", false, "lift the suspension")
	set.Flags().StringVar(&keep, "keep-evidence", "", "how long nodes keep code, inputs and outputs of its tasks, such as 720h; 0: as they do by default")
	f.define(set.Flags())
	return set
}

// evidenceHours reads a time in whole hours; "" and "0" are none.
func evidenceHours(text string) (int, error) {
	if text == "" || text == "0" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < time.Hour || d%time.Hour != 0 {
		return 0, usage("--keep-evidence %q is not a number of whole hours, such as 720h", text)
	}
	return int(d.Hours()), nil
}

func (p *proposer) tenantRow(ctx context.Context, name string) (registry.Tenant, error) {
	var list struct{ Tenants []registry.Tenant }
	if err := p.door.do(ctx, "GET", "/v1/tenants", nil, &list); err != nil {
		return registry.Tenant{}, err
	}
	return find(list.Tenants, "tenant", name, func(t registry.Tenant) bool { return t.Name == name })
}

func (a *app) printTenant(ctx context.Context, p *proposer, name string) error {
	t, err := p.tenantRow(ctx, name)
	if err == nil {
		a.print(t)
	}
	return err
}
