package audit

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/agenticraft/node/identity"
)

// sortTask is the sort of the resource that an entry's task is.
const sortTask = "task"

// Resources are what the entry is about, each as "sort:name": the language,
// sandbox, runtime, node and mandate of an execution, the member, agent, key,
// role, tenant or policy that was changed, the rule of an alert. An entry whose
// body this version cannot read is about nothing but its task.
func (e Entry) Resources() []string {
	var out []string
	e.about(func(sort, name string) {
		if r := sort + ":" + name; name != "" && !slices.Contains(out, r) {
			out = append(out, r)
		}
	})
	return out
}

// about tells the sorts and names of [Entry.Resources], where a name may be empty
// and a pair may come twice.
func (e Entry) about(add func(sort, name string)) {
	node := func(id identity.ID) { add("node", string(id)) }
	add(sortTask, e.Task)
	switch e.Kind {
	case KindIntent:
		if b, ok := e.intentAsRead(); ok {
			add("language", b.Language)
			add("sandbox", b.Sandbox)
			add("runtime", b.Runtime)
			node(b.Executor)
			node(b.Door)
			for _, m := range b.Mandate {
				add("mandate", m.ID)
			}
		}
	case KindOutcome, KindLate:
		node(e.Author)
	case KindErasure:
		var b ErasureBody
		if json.Unmarshal(e.Body, &b) == nil {
			node(e.Author)
			for _, task := range b.Tasks {
				add(sortTask, task)
			}
		}
	default:
		e.changed(add)
	}
}

// intentAsRead is the body of an intent that may be of a later version.
func (e Entry) intentAsRead() (b IntentBody, ok bool) {
	if b, ok = strictIntent(e.Body); ok {
		return b, true
	}
	return b, json.Unmarshal(e.Body, &b) == nil
}

// changed tells what kinds whose bodies are other packages' are about.
func (e Entry) changed(add func(sort, name string)) {
	var b struct {
		ID        string `json:"id"`
		Name      string `json:"name"`
		Principal string `json:"principal"`
		Role      string `json:"role"`
		Digest    string `json:"digest"`
		Door      string `json:"door"`
		Node      string `json:"node"`
		Rule      string `json:"rule"`
	}
	if e.Kind == KindDenial {
		if denial, ok := strictDenial(e.Body); ok {
			add("node", string(denial.Door))
			return
		}
	}
	if json.Unmarshal(e.Body, &b) != nil {
		return
	}
	switch e.Kind {
	case KindDenial, KindRead:
		add("node", b.Door)
	case KindMember:
		add("node", b.ID)
	case KindAgent:
		add("agent", b.ID)
		add("agent", b.Name)
		if id, err := identity.ParseID(b.ID); err == nil {
			add("agent", id.DID())
		}
	case KindKey:
		add("key", b.ID)
		add("key", b.Name)
	case KindRole:
		add("role", b.Role)
		add("principal", b.Principal)
	case KindTenant:
		add("tenant", b.Name)
	case KindPolicy:
		add("policy", b.Digest)
	case KindAlert:
		add("rule", b.Rule)
		add("node", b.Node)
	}
}

// concerns reports whether the entry is about a resource, named in full or by
// what stands behind the colon.
func (e Entry) concerns(resource string) bool {
	return slices.ContainsFunc(e.Resources(), func(r string) bool {
		_, name, _ := strings.Cut(r, ":")
		return r == resource || name == resource
	})
}

// decidedBy reports whether the policy with this digest decided in the entry,
// or was put in force by it.
func (e Entry) decidedBy(policy string) bool { return slices.Contains(e.policies(), policy) }

func (e Entry) policies() []string {
	var out []string
	if e.Decision != nil && e.Decision.Policy != "" {
		out = append(out, e.Decision.Policy)
	}
	switch e.Kind {
	case KindIntent:
		if b, ok := e.intentAsRead(); ok && b.DoorDecision != nil && b.DoorDecision.Policy != "" {
			out = append(out, b.DoorDecision.Policy)
		}
	case KindPolicy:
		var b struct {
			Digest string `json:"digest"`
		}
		if json.Unmarshal(e.Body, &b) == nil && b.Digest != "" {
			out = append(out, b.Digest)
		}
	}
	return out
}
