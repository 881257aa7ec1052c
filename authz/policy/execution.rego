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
	ceilings.languages[input.execution.language]
	ceilings.sandboxes[input.execution.sandbox]
	ceilings.network[input.execution.network]
	input.execution.code_bytes <= ceilings.obligations.code_bytes
	input.execution.memory_bytes <= ceilings.obligations.memory_bytes
	input.execution.timeout_ms <= ceilings.obligations.timeout_ms
	input.execution.cpu_percent <= ceilings.obligations.cpu_percent
	input.execution.output_bytes <= ceilings.obligations.output_bytes
	input.execution.file_size_bytes <= ceilings.obligations.file_size_bytes
	input.execution.processes <= ceilings.obligations.processes
	input.execution.least >= 0
	sandbox_free
	node_runs
}

# A tenant may be bound to one sandbox; nobody is given another than he named.
sandbox_free if ceilings.obligations.sandbox == ""

sandbox_free if input.execution.sandbox == "auto"

sandbox_free if input.execution.sandbox == ceilings.obligations.sandbox

# A door that decides before a place is chosen names no node.
node_runs if input.node.id == ""

node_runs if input.node.run_allowed
