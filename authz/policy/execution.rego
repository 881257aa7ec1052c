# What may be run: the ceilings that the tenant's class gives to the role that
# the caller acts in.
package agenticraft.execution

import rego.v1

import data.agenticraft.authz

# Undefined, and so a denial, if the data names ceilings that do not exist. Most
# tenants are of no class: those are "standard".
ceilings := data.ceilings.standard[data.roles.table[authz.acting].ceilings] if {
	not data.tenants[input.tenant]
} else := data.ceilings[data.tenants[input.tenant].class][data.roles.table[authz.acting].ceilings]

# What the request asks for, each within its ceiling. Zero means that the caller
# did not ask, and the obligations then cap the node's default.
fits if {
	asked := input.execution
	allowed := ceilings
	allowed.languages[asked.language]
	allowed.sandboxes[asked.sandbox]
	allowed.data_classes[asked.data_class]
	ceiling := allowed.obligations
	asked.code_bytes <= ceiling.code_bytes
	asked.memory_bytes <= ceiling.memory_bytes
	asked.timeout_ms <= ceiling.timeout_ms
	asked.cpu_percent <= ceiling.cpu_percent
	asked.output_bytes <= ceiling.output_bytes
	asked.file_size_bytes <= ceiling.file_size_bytes
	asked.processes <= ceiling.processes
	asked.least >= 0
	input.node.run_allowed
	reaches
}

# Nothing, or destinations that are each covered by a pattern. What the tenant may
# reach at all is no matter of policy: an admin sets it, and the node holds it.
reaches if input.execution.destinations == []

reaches if {
	input.execution.destinations[0]
	every destination in input.execution.destinations {
		some pattern, _ in destination.matches
		ceilings.network[pattern]
	}
}
