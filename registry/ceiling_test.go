package registry_test

import (
	"encoding/json"
	"testing"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/registry"
)

// INVARIANT: I9, authority only narrows along a chain: keepers admit no execution
// beyond its tenant's ceiling, whatever the node that would run it decided.
func TestKeepersHoldIntentsToTheCeiling(t *testing.T) {
	try := func(rules int, ceiling *registry.Ceiling, change func(*audit.IntentBody)) string {
		t.Helper()
		tables := genesisTables(t)
		if ceiling != nil {
			limit := entry(t, admin(), registry.TenantBody{Action: registry.Limit, Name: "acme", Ceiling: ceiling})
			if err := admit(tables, 1, keeper.ID(), limit); err != nil {
				t.Fatal(err)
			}
		}
		if rules < 2 {
			tables["cluster"] = []byte(`{"name":"test","vouch":true,"rules":1}`)
		}
		var b audit.IntentBody
		if err := json.Unmarshal([]byte(intentBody(keeper.ID())), &b); err != nil {
			t.Fatal(err)
		}
		b.Asked = &audit.Asked{CodeBytes: 10, DataClass: "public"}
		b.Limits = map[string]int64{"memory_bytes": 100, "wall_ms": 100, "cpu_percent": 100, "output_bytes": 100, "file_size_bytes": 100, "processes": 100}
		change(&b)
		text, err := audit.MarshalBody(b)
		if err != nil {
			t.Fatal(err)
		}
		e := intent(t)
		e.Body = text
		return code(admit(tables, 2, worker.ID(), e))
	}
	as := func(*audit.IntentBody) {}
	reaching := func(where string) func(*audit.IntentBody) {
		return func(b *audit.IntentBody) { b.Network = "allow=" + where }
	}
	for name, c := range map[string]struct {
		rules   int
		ceiling *registry.Ceiling
		change  func(*audit.IntentBody)
		want    string
	}{
		"no ceiling":                {2, nil, as, ""},
		"no ceiling, network":       {2, nil, reaching("example.org:443"), "ceiling"},
		"an older log":              {1, nil, reaching("example.org:443"), ""},
		"network within":            {2, &registry.Ceiling{Network: []string{"*.example.org:443"}}, reaching("a.example.org:443"), ""},
		"network beyond":            {2, &registry.Ceiling{Network: []string{"*.example.org:443"}}, reaching("a.example.org:443,b.example.com:443"), "ceiling"},
		"network of another syntax": {2, &registry.Ceiling{Network: []string{"*:*"}}, func(b *audit.IntentBody) { b.Network = "all" }, "ceiling"},
		"language within":           {2, &registry.Ceiling{Languages: []string{"python", "sh"}}, as, ""},
		"language beyond":           {2, &registry.Ceiling{Languages: []string{"sh"}}, as, "ceiling"},
		"sandbox within":            {2, &registry.Ceiling{Sandboxes: []string{"process"}}, as, ""},
		"sandbox beyond":            {2, &registry.Ceiling{Sandboxes: []string{"docker"}}, as, "ceiling"},
		"sandbox left to the node":  {2, &registry.Ceiling{Sandboxes: []string{"auto"}}, as, ""},
		"data class beyond":         {2, &registry.Ceiling{DataClasses: []string{"unclassified"}}, as, "ceiling"},
		"code beyond":               {2, &registry.Ceiling{CodeBytes: 9}, as, "ceiling"},
		"limits within":             {2, &registry.Ceiling{MemoryBytes: 100, TimeoutMS: 100, CPUPercent: 100, OutputBytes: 100, FileSizeBytes: 100, Processes: 100}, as, ""},
		"memory beyond":             {2, &registry.Ceiling{MemoryBytes: 99}, as, "ceiling"},
		"time beyond":               {2, &registry.Ceiling{TimeoutMS: 99}, as, "ceiling"},
		"cpu beyond":                {2, &registry.Ceiling{CPUPercent: 99}, as, "ceiling"},
		"output beyond":             {2, &registry.Ceiling{OutputBytes: 99}, as, "ceiling"},
		"file size beyond":          {2, &registry.Ceiling{FileSizeBytes: 99}, as, "ceiling"},
		"processes beyond":          {2, &registry.Ceiling{Processes: 99}, as, "ceiling"},
		"no limit at all":           {2, &registry.Ceiling{MemoryBytes: 100}, func(b *audit.IntentBody) { b.Limits = nil }, "ceiling"},
	} {
		if got := try(c.rules, c.ceiling, c.change); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
