# Who may do what: one decision per query. Whatever is not allowed here is
# denied, and nothing here denies: a rule that fails to match can only make the
# answer narrower. Facts are looked up by key, never searched for.
package agenticraft.authz

import rego.v1

import data.agenticraft.execution

default decision := {"allow": false}

# Everything but running code.
decision := {"allow": true} if {
	input.action != "exec.run"
	input.principal.registered
	vouching_accepted
	within_reach
	tenant_serves
}

# Running code: the execution must fit the ceilings too, and the answer carries
# them as obligations.
decision := {"allow": true, "obligations": execution.ceilings.obligations} if {
	input.action == "exec.run"
	input.principal.registered
	vouching_accepted
	within_reach
	input.suspended == false
	execution.fits
}

# The strongest of the caller's roles that grants the action, in the order of
# data.roles.precedence. Undefined, and so a denial, if there is none. Most callers
# have one role, which needs no search.
acting := input.principal.only_role if {
	data.roles.table[input.principal.only_role].actions[input.action]
} else := [role |
	some role in data.roles.precedence
	input.principal.roles[role]
	data.roles.table[role].actions[input.action]
][0]

# A caller who signed for himself, or an action for which a node may speak.
vouching_accepted if input.vouched == false

vouching_accepted if data.vouching.actions[input.action]

# Some roles hold in the caller's own tenant, some in the whole cluster.
within_reach if {
	data.roles.table[acting].reach == "tenant"
	input.tenant == input.principal.tenant
}

within_reach if data.roles.table[acting].reach == "cluster"

# A suspended tenant is closed to its own people, not to those of the cluster.
tenant_serves if input.suspended == false

tenant_serves if data.roles.table[acting].reach == "cluster"
