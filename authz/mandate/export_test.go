package mandate

import (
	"time"

	"github.com/agenticraft/node/identity"
)

// Append signs a block as somebody would who keeps no rules.
func Append(key *identity.Key, parent string, to identity.ID, t Terms) string {
	blocks, err := parse(parent)
	if err != nil {
		return parent
	}
	last := blocks[len(blocks)-1]
	p := payload{
		By: key.ID().DID(), Cluster: last.Cluster, Tenant: last.Tenant, To: to.DID(),
		IssuedAt: time.Now().Unix(), Nonce: nonce(), Previous: last.id, Version: version,
	}
	p.set(t)
	text, err := p.sign(key, parent)
	if err != nil {
		panic(err)
	}
	return text
}

// VerifyCold is Verify of a chain that was never seen.
func VerifyCold(text string, o Options) (Verified, error) { return verifyChain(text, o, nil) }
