//go:build linux && long

package main

import (
	"encoding/json"
	"os/exec"
	"slices"
	"testing"
)

// An address of the internet that is the node's own leads to the node, and is
// refused whatever policy grants: its door, and every other port.
func TestANodesOwnAddressIsRefused(t *testing.T) {
	needPython(t)
	c := startApart(t, 1)
	const own = "9.9.9.9"
	if out, err := exec.CommandContext(t.Context(), "ip", "-n", c.network("0"), "addr", "add", own+"/32", "dev", "lo").CombinedOutput(); err != nil {
		t.Fatalf("ip addr add: %v\n%s", err, out)
	}
	c.try(exitOK, "", "runtime", "add", "python")
	c.kill(0) // a node looks for its first runtime when it starts
	c.start(0)
	c.awaitReady(0)
	c.try(exitOK, "", "tenant", "set", defaultTenant, "--network", "*:*", "--server", c.Nodes[0].HTTP)
	rep, r := c.exec(0, "--network", "allow="+own+":80,"+own+":8420", "-c", visits, "--", "http://"+own+"/", "http://"+own+":8420/healthz")
	var got []string
	if err := json.Unmarshal(rep.Result, &got); err != nil {
		t.Fatalf("%v: %+v %s%s", err, rep.Error, r.stdout, r.stderr)
	}
	if want := []string{"403 address_refused", "403 address_refused"}; !slices.Equal(got, want) {
		t.Errorf("a program got %q, want %q", got, want)
	}
}
