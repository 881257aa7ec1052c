# What may be run: the ceilings that the tenant's class gives to the role that
# the caller acts in.
package agenticraft.execution

import rego.v1

import data.agenticraft.authz

default class := "standard"

class := data.tenants[input.tenant].class

# Undefined, and so a denial, if the data names ceilings that do not exist.
ceilings := data.ceilings[class][data.roles.table[authz.acting].ceilings]

# What the request asks for, each within its ceiling. Zero means that the caller
# did not ask, and the obligations then cap the node's default.
fits if {
	asked := input.execution
	allowed := ceilings
	allowed.languages[asked.language]
	allowed.sandboxes[asked.sandbox]
	network_fits
	data_class_fits
	ceiling := allowed.obligations
	asked.code_bytes <= ceiling.code_bytes
	asked.memory_bytes <= ceiling.memory_bytes
	asked.timeout_ms <= ceiling.timeout_ms
	asked.cpu_percent <= ceiling.cpu_percent
	asked.output_bytes <= ceiling.output_bytes
	asked.file_size_bytes <= ceiling.file_size_bytes
	asked.processes <= ceiling.processes
	asked.least >= 0
	node_runs
}

# "none", or destinations that are each covered by a pattern. What the tenant may
# reach at all is no matter of policy: an admin sets it, and the node holds it.
network_fits if ceilings.network[input.execution.network]

network_fits if {
	count(input.execution.destinations) > 0
	every destination in input.execution.destinations {
		some pattern, _ in destination.matches
		ceilings.network[pattern]
	}
}

data_class_fits if input.execution.data_class == "unclassified"

data_class_fits if ceilings.data_classes[input.execution.data_class]

# A door that decides before a place is chosen names no node.
node_runs if input.node.id == ""

node_runs if input.node.run_allowed
