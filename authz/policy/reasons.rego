# Why a query was denied, for people. Asked only after a denial: nothing here
# can turn one into an allowance.
package agenticraft.reasons

import rego.v1

import data.agenticraft.authz
import data.agenticraft.execution

found contains reason("not_registered", "the caller is not registered in this cluster; an admin can register it: agenticraft agent add, or agenticraft key create") if {
	not input.principal.registered
}

found contains reason("role_missing", sprintf("action %s needs one of the roles %s; the caller has %s", [input.action, listed(granting), listed(object.keys(input.principal.roles))])) if {
	input.principal.registered
	not authz.acting
}

found contains reason("vouch_not_allowed", sprintf("a node may not vouch for the caller of action %s; sign the request with an agent key", [input.action])) if {
	not authz.vouching_accepted
}

found contains reason("other_tenant", sprintf("role %s holds in tenant %s only, not in %s; roles that hold in every tenant: %s", [authz.acting, input.principal.tenant, input.tenant, listed(cluster_wide)])) if {
	authz.acting
	not authz.within_reach
}

found contains reason("tenant_suspended", sprintf("tenant %s is suspended; an admin can lift it", [input.tenant])) if {
	input.suspended
	not lifted
}

lifted if {
	input.action != "exec.run"
	authz.tenant_serves
}

# The rest is about running code, in the role that the caller acts in.
found contains reason("execution_missing", "the request names nothing to run") if {
	input.action == "exec.run"
	not input.execution
}

found contains reason("language_not_allowed", sprintf("language %q is not allowed; allowed: %s", [input.execution.language, listed(allowed(execution.ceilings.languages))])) if {
	authz.acting
	input.execution
	not execution.ceilings.languages[input.execution.language]
}

found contains reason("sandbox_not_allowed", sprintf("sandbox %q is not allowed; allowed: %s", [input.execution.sandbox, listed(allowed(execution.ceilings.sandboxes))])) if {
	authz.acting
	input.execution
	not execution.ceilings.sandboxes[input.execution.sandbox]
}

found contains reason("network_not_allowed", sprintf("network %q is not allowed; allowed: none, and HOST:PORT within %s", [input.execution.network, listed(allowed(object.get(execution.ceilings, "network", {})))])) if {
	authz.acting
	input.execution
	not execution.reaches
}

found contains reason("data_class_not_allowed", sprintf("data class %q is not allowed; allowed: %s", [input.execution.data_class, listed(allowed(object.get(execution.ceilings, "data_classes", {})))])) if {
	authz.acting
	input.execution
	not execution.ceilings.data_classes[input.execution.data_class]
}

found contains reason(code, sprintf("%s of %d is outside the allowed 1 to %d %s", [name, asked, ceiling, unit])) if {
	some code, [name, fact, unit] in {
		"limit_memory": ["memory", "memory_bytes", "bytes"],
		"limit_timeout": ["time-out", "timeout_ms", "ms"],
		"limit_cpu": ["cpu", "cpu_percent", "percent of one core"],
		"limit_output": ["output", "output_bytes", "bytes"],
		"limit_file_size": ["file size", "file_size_bytes", "bytes"],
		"limit_processes": ["processes", "processes", "processes"],
		"limit_code": ["code", "code_bytes", "bytes"],
	}
	asked := input.execution[fact]
	ceiling := execution.ceilings.obligations[fact]
	outside(asked, ceiling)
}

found contains reason("node_does_not_run", sprintf("node %s does not run code; send the request to another node, or let the cluster choose: --on any", [input.node.id])) if {
	input.action == "exec.run"
	not input.node.run_allowed
}

reason(code, message) := {"code": code, "message": message}

outside(asked, _) if asked < 0

outside(asked, ceiling) if asked > ceiling

granting contains role if data.roles.table[role].actions[input.action]

cluster_wide contains role if {
	data.roles.table[role].reach == "cluster"
	data.roles.table[role].actions[input.action]
}

allowed(names) := {name | names[name]}

listed(names) := concat(", ", sort(names)) if count(names) > 0

listed(names) := "none" if count(names) == 0
