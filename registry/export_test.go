package registry

import (
	"time"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/identity"
)

// Memory is tables in memory, for tests of the admission rules alone.
type Memory = memory

// Signed is the entry with its agent's signature, made at a time, if its body can
// bear one.
func SignEntry(key *identity.Key, cluster string, at time.Time, e audit.Entry) audit.Entry {
	var b signable
	var err error
	switch e.Kind {
	case audit.KindAgent:
		b, err = read[AgentBody](e.Body)
	case audit.KindKey:
		b, err = read[KeyBody](e.Body)
	case audit.KindTenant:
		b, err = read[TenantBody](e.Body)
	case audit.KindRole:
		b, err = read[RoleBody](e.Body)
	case audit.KindPolicy:
		b, err = read[PolicyBody](e.Body)
	case audit.KindMandate:
		b, err = read[MandateBody](e.Body)
	default:
		return e
	}
	if err != nil {
		return e
	}
	s, err := signAt(key, cluster, at, b.with(nil).(signable))
	if err != nil {
		panic(err)
	}
	if e.Body, err = audit.MarshalBody(b.with(s)); err != nil {
		panic(err)
	}
	e.Once = s.once(e.Actor)
	return e
}
