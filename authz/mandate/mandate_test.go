package mandate_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/agenticraft/node/authz/destination"
	"github.com/agenticraft/node/authz/mandate"
	"github.com/agenticraft/node/identity"
)

const cluster = "agenticraft:test"

func seeded(tb testing.TB, n byte) *identity.Key {
	tb.Helper()
	key, err := identity.FromSeed(slices.Repeat([]byte{n}, 32))
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func terms() mandate.Terms {
	return mandate.Terms{
		Actions: []string{"exec.run"}, Languages: []string{"python", "starlark"},
		Limits: mandate.Limits{MemoryBytes: 256 << 20, TimeoutMS: 10_000}, Budget: mandate.Budget{Runs: 100},
		Depth: 4, NotAfter: time.Now().Add(time.Hour),
	}
}

func grant(tb testing.TB, by, to *identity.Key, t mandate.Terms) string {
	tb.Helper()
	text, err := mandate.Grant(by, mandate.Root{Cluster: cluster, Tenant: "acme", To: to.ID(), Terms: t})
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

// chain hands a grant on depth times.
func chain(tb testing.TB, depth int) string {
	tb.Helper()
	text := grant(tb, seeded(tb, 1), seeded(tb, 2), terms())
	for i := range depth {
		t := mandate.Terms{Depth: 3 - i}
		var err error
		if text, err = mandate.Narrow(seeded(tb, byte(2+i)), text, seeded(tb, byte(3+i)).ID(), t); err != nil {
			tb.Fatalf("hop %d: %v", i, err)
		}
	}
	return text
}

func TestChainNamesRootHolderAndEveryHop(t *testing.T) {
	text := chain(t, mandate.MaxDepth)
	v, err := mandate.Verify(text, mandate.Options{Cluster: cluster, Holder: seeded(t, 6).ID()})
	if err != nil {
		t.Fatal(err)
	}
	if v.Root != seeded(t, 1).ID() || v.Holder != seeded(t, 6).ID() || v.Tenant != "acme" || len(v.Chain) != 5 {
		t.Errorf("Verify = %+v", v)
	}
	if v.Terms.Budget.Runs != 100 || v.Terms.Limits.MemoryBytes != 256<<20 || v.Terms.Depth != 0 {
		t.Errorf("terms were not inherited: %+v", v.Terms)
	}
	if _, err := mandate.Narrow(seeded(t, 6), text, seeded(t, 7).ID(), mandate.Terms{}); err == nil {
		t.Error("a fifth hop was signed")
	}
}

func TestNarrowRefusesWhatWasNotGiven(t *testing.T) {
	root := grant(t, seeded(t, 1), seeded(t, 2), terms())
	for name, wider := range map[string]mandate.Terms{
		"action":   {Actions: []string{"exec.run", "key.create"}},
		"language": {Languages: []string{"sh"}},
		"memory":   {Limits: mandate.Limits{MemoryBytes: 256<<20 + 1}},
		"runs":     {Budget: mandate.Budget{Runs: 101}},
		"depth":    {Depth: 4},
		"time":     {NotAfter: time.Now().Add(2 * time.Hour)},
		"network":  {Network: []string{"example.org:443"}},
	} {
		if text, err := mandate.Narrow(seeded(t, 2), root, seeded(t, 3).ID(), wider); !errors.Is(err, mandate.ErrWider) || text != "" {
			t.Errorf("%s: %q, %v; want ErrWider", name, text, err)
		}
	}
	if _, err := mandate.Narrow(seeded(t, 9), root, seeded(t, 3).ID(), mandate.Terms{}); !errors.Is(err, mandate.ErrBroken) {
		t.Errorf("narrowed by another than the holder: %v", err)
	}
	for _, to := range []byte{1, 2} {
		if _, err := mandate.Narrow(seeded(t, 2), root, seeded(t, to).ID(), mandate.Terms{}); !errors.Is(err, mandate.ErrCycle) {
			t.Errorf("cycle to key %d: %v", to, err)
		}
	}
}

// INVARIANT: I9, authority only narrows along a chain: no sequence of blocks
// ever grants more than its root, whatever the holders sign.
func TestAuthorityOnlyNarrowsAlongAChain(t *testing.T) {
	keys := make([]*identity.Key, 8)
	for i := range keys {
		keys[i] = seeded(t, byte(i+1))
	}
	now := time.Now()
	names := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d"}), 1, 4, rapid.ID)
	number := rapid.Int64Range(0, 5)
	networks := []string{"a.example.org:443", "*.example.org:443", "*.example.org:*", "*:443", "*:*", "10.0.0.1:443", "example.org:80"}
	reach := []string{"a.example.org:443", "b.example.org:443", "a.example.org:80", "x.y.example.org:443", "10.0.0.1:443", "10.0.0.2:443", "example.org:80"}
	any := rapid.Custom(func(t *rapid.T) mandate.Terms {
		return mandate.Terms{
			Actions: names.Draw(t, "actions"), Languages: names.Draw(t, "languages"),
			Limits:  mandate.Limits{MemoryBytes: number.Draw(t, "memory"), Processes: number.Draw(t, "processes")},
			Budget:  mandate.Budget{Runs: number.Draw(t, "runs"), WallMS: number.Draw(t, "wall")},
			Network: rapid.SliceOfNDistinct(rapid.SampledFrom(networks), 0, 2, rapid.ID).Draw(t, "network"),
			Depth:   rapid.IntRange(0, 4).Draw(t, "depth"), NotAfter: now.Add(time.Duration(rapid.IntRange(1, 5).Draw(t, "hours")) * time.Hour),
		}
	})
	within := func(child, parent int64) bool { return parent == 0 || child != 0 && child <= parent }
	rapid.Check(t, func(rt *rapid.T) {
		root := any.Draw(rt, "root")
		text := grant(t, keys[0], keys[1], root)
		for hops := rapid.IntRange(0, 6).Draw(rt, "hops"); hops > 0; hops-- {
			by, to := rapid.SampledFrom(keys).Draw(rt, "by"), rapid.SampledFrom(keys).Draw(rt, "to")
			// What a dishonest holder signs, without Narrow's own checks.
			text = mandate.Append(by, text, to.ID(), any.Draw(rt, "terms"))
		}
		v, err := mandate.Verify(text, mandate.Options{Cluster: cluster})
		if err != nil {
			return
		}
		got := v.Terms
		for _, a := range got.Actions {
			if !slices.Contains(root.Actions, a) {
				rt.Fatalf("action %s beyond the root's %v", a, root.Actions)
			}
		}
		for _, l := range got.Languages {
			if !slices.Contains(root.Languages, l) {
				rt.Fatalf("language %s beyond the root's %v", l, root.Languages)
			}
		}
		for _, d := range reach {
			if one := []string{d}; len(destination.Covered(one, got.Network)) > len(destination.Covered(one, root.Network)) {
				rt.Fatalf("network %s beyond the root's %v", d, root.Network)
			}
		}
		if !within(got.Limits.MemoryBytes, root.Limits.MemoryBytes) || !within(got.Limits.Processes, root.Limits.Processes) ||
			!within(got.Budget.Runs, root.Budget.Runs) || !within(got.Budget.WallMS, root.Budget.WallMS) ||
			got.Depth+len(v.Chain)-1 > root.Depth || got.NotAfter.After(root.NotAfter) || v.Root != keys[0].ID() {
			rt.Fatalf("%+v grants more than %+v", got, root)
		}
	})
}

func TestVerifyRefusesForgeries(t *testing.T) {
	good := chain(t, 2)
	parts := strings.Split(good, ".")
	other := strings.Split(grant(t, seeded(t, 8), seeded(t, 2), terms()), ".")
	swap := func(i int, with string) string {
		p := slices.Clone(parts)
		p[i] = with
		return strings.Join(p, ".")
	}
	edited := func(i int, from, to string) string {
		raw, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil || !strings.Contains(string(raw), from) {
			t.Fatalf("no %q in %s, %v", from, raw, err)
		}
		return swap(i, base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(raw), from, to, 1))))
	}
	ok := mandate.Options{Cluster: cluster}
	for name, c := range map[string]struct {
		text string
		opt  mandate.Options
		want error
	}{
		"empty":              {"", ok, mandate.ErrMalformed},
		"other version":      {"acm2" + good[4:], ok, mandate.ErrMalformed},
		"half a block":       {strings.Join(parts[:4], "."), ok, mandate.ErrMalformed},
		"first block cut":    {"acm1." + strings.Join(parts[3:], "."), ok, mandate.ErrBroken},
		"middle block cut":   {strings.Join(slices.Concat(parts[:3], parts[5:]), "."), ok, mandate.ErrBroken},
		"other root":         {strings.Join(slices.Concat(other, parts[3:]), "."), ok, mandate.ErrBroken},
		"wider language":     {edited(5, `"python"`, `"perl"`), ok, mandate.ErrWider},
		"root edited":        {edited(1, `"runs":100`, `"runs":900`), ok, mandate.ErrBroken},
		"last edited":        {edited(5, `"runs":100`, `"runs":99`), ok, mandate.ErrSignature},
		"unknown member":     {edited(5, `{"actions"`, `{"Admin":true,"actions"`), ok, mandate.ErrMalformed},
		"negative limit":     {edited(5, `"runs":100`, `"runs":-1`), ok, mandate.ErrMalformed},
		"other signature":    {swap(6, parts[4]), ok, mandate.ErrSignature},
		"short signature":    {swap(6, parts[4][:8]), ok, mandate.ErrSignature},
		"other cluster":      {good, mandate.Options{Cluster: "agenticraft:other"}, mandate.ErrAudience},
		"other holder":       {good, mandate.Options{Cluster: cluster, Holder: seeded(t, 3).ID()}, mandate.ErrAudience},
		"too late":           {good, mandate.Options{Cluster: cluster, Now: time.Now().Add(time.Hour)}, mandate.ErrTime},
		"too early":          {good, mandate.Options{Cluster: cluster, Now: time.Now().Add(-time.Hour)}, mandate.ErrTime},
		"a thousand blocks":  {good + strings.Repeat("."+parts[5]+"."+parts[6], 1000), ok, mandate.ErrTooDeep},
		"a thousand small":   {"acm1" + strings.Repeat(".e30.AA", 1000), ok, mandate.ErrTooDeep},
		"megabytes of stops": {"acm1" + strings.Repeat(".", 4<<20), ok, mandate.ErrTooDeep},
	} {
		began := time.Now()
		v, err := mandate.Verify(c.text, c.opt)
		if !errors.Is(err, c.want) || v.Root != "" || v.Chain != nil {
			t.Errorf("%s: Verify = %+v, %v; want nothing, %v", name, v, err, c.want)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%s: refused after %v", name, took)
		}
	}
}

func TestCovers(t *testing.T) {
	v, err := mandate.Verify(chain(t, 1), mandate.Options{Cluster: cluster})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		action, language string
		asked            mandate.Limits
		want             error
	}{
		"all inside":  {"exec.run", "python", mandate.Limits{MemoryBytes: 1 << 20, Processes: 1000}, nil},
		"no limit":    {"exec.run", "starlark", mandate.Limits{}, nil},
		"action":      {"exec.cancel", "python", mandate.Limits{}, mandate.ErrExceeded},
		"language":    {"exec.run", "sh", mandate.Limits{}, mandate.ErrExceeded},
		"memory":      {"exec.run", "python", mandate.Limits{MemoryBytes: 257 << 20}, mandate.ErrExceeded},
		"no language": {"exec.run", "", mandate.Limits{}, mandate.ErrExceeded},
	} {
		if err := v.Covers(c.action, c.language, c.asked); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	owner, holder := seeded(t, 1), seeded(t, 2)
	wide := terms()
	wide.Network = []string{"*.example.org:443"}
	reaching, err := mandate.Verify(grant(t, owner, holder, wide), mandate.Options{Cluster: cluster})
	if err != nil {
		t.Fatal(err)
	}
	for network, want := range map[string]error{"api.example.org:443": nil, "example.org:443": mandate.ErrExceeded, "api.example.org:80": mandate.ErrExceeded} {
		if err := reaching.Covers("exec.run", "python", mandate.Limits{}, network); !errors.Is(err, want) {
			t.Errorf("network %s: %v, want %v", network, err, want)
		}
		if err := v.Covers("exec.run", "python", mandate.Limits{}, network); !errors.Is(err, mandate.ErrExceeded) {
			t.Errorf("network %s of a mandate that grants none: %v", network, err)
		}
	}
	if err := (mandate.Verified{}).Covers("exec.run", "python", mandate.Limits{}); err == nil {
		t.Error("the zero value covers something")
	}
}

// vector is a chain and what every implementation must say of it.
type vector struct {
	Name    string   `json:"name"`
	Mandate string   `json:"mandate"`
	Now     int64    `json:"now"`
	Cluster string   `json:"cluster"`
	Error   string   `json:"error,omitempty"`
	Root    string   `json:"root,omitempty"`
	Holder  string   `json:"holder,omitempty"`
	Chain   []string `json:"chain,omitempty"` // ids
}

var update = flag.Bool("update", false, "write vectors that are not there yet")

func TestVectors(t *testing.T) {
	file := filepath.Join("testdata", "vectors.json")
	if *update {
		addVectors(t, file)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var vectors []vector
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatal(err)
	}
	for _, want := range vectors {
		if diff := cmp.Diff(want, judged(want)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", want.Name, diff)
		}
	}
}

func judged(v vector) vector {
	got := vector{Name: v.Name, Mandate: v.Mandate, Now: v.Now, Cluster: v.Cluster}
	verified, err := mandate.Verify(v.Mandate, mandate.Options{Cluster: v.Cluster, Now: time.Unix(v.Now, 0)})
	for _, known := range []error{
		mandate.ErrMalformed, mandate.ErrTooDeep, mandate.ErrSignature, mandate.ErrBroken,
		mandate.ErrCycle, mandate.ErrWider, mandate.ErrTime, mandate.ErrAudience,
	} {
		if errors.Is(err, known) {
			got.Error = known.Error()
		}
	}
	if err == nil {
		got.Root, got.Holder = verified.Root.DID(), verified.Holder.DID()
		for _, l := range verified.Chain {
			got.Chain = append(got.Chain, l.ID)
		}
	}
	return got
}

// addVectors writes those that are not there yet; what is there stays.
func addVectors(t *testing.T, file string) {
	t.Helper()
	four, now := chain(t, 4), time.Now().Unix()
	parts := strings.Split(four, ".")
	wide := mandate.Append(seeded(t, 2), grant(t, seeded(t, 1), seeded(t, 2), terms()), seeded(t, 3).ID(), mandate.Terms{
		Actions: []string{"key.create"}, Languages: []string{"python"}, Limits: terms().Limits, Budget: terms().Budget, NotAfter: time.Now().Add(time.Minute),
	})
	back := mandate.Append(seeded(t, 2), grant(t, seeded(t, 1), seeded(t, 2), terms()), seeded(t, 1).ID(), mandate.Terms{
		Actions: []string{"exec.run"}, Languages: []string{"python"}, Limits: terms().Limits, Budget: terms().Budget, NotAfter: time.Now().Add(time.Minute),
	})
	wideNetwork := terms()
	wideNetwork.Network = []string{"*.example.org:443"}
	reaching := grant(t, seeded(t, 1), seeded(t, 2), wideNetwork)
	handed, err := mandate.Narrow(seeded(t, 2), reaching, seeded(t, 3).ID(), mandate.Terms{Network: []string{"api.example.org:443"}})
	if err != nil {
		t.Fatal(err)
	}
	reachesFurther := mandate.Append(seeded(t, 2), reaching, seeded(t, 3).ID(), mandate.Terms{
		Actions: []string{"exec.run"}, Languages: []string{"python"}, Network: []string{"*:443"}, Limits: terms().Limits, Budget: terms().Budget, NotAfter: time.Now().Add(time.Minute),
	})
	vectors := []vector{
		{Name: "root only", Mandate: grant(t, seeded(t, 1), seeded(t, 2), terms())},
		{Name: "four hops", Mandate: four},
		{Name: "six blocks", Mandate: four + "." + parts[9] + "." + parts[10]},
		{Name: "second block missing", Mandate: strings.Join(slices.Concat(parts[:3], parts[5:]), ".")},
		{Name: "wrong signature", Mandate: strings.Join(slices.Concat(parts[:2], parts[4:5]), ".")},
		{Name: "action added", Mandate: wide},
		{Name: "back to the root", Mandate: back},
		{Name: "expired", Mandate: four, Now: now + 3600},
		{Name: "another cluster", Mandate: four, Cluster: "agenticraft:other"},
		{Name: "empty", Mandate: ""},
		{Name: "network", Mandate: handed},
		{Name: "network added", Mandate: reachesFurther},
		{Name: "network not in its one form", Mandate: mandate.Append(seeded(t, 2), reaching, seeded(t, 3).ID(), mandate.Terms{
			Actions: []string{"exec.run"}, Languages: []string{"python"}, Network: []string{"API.example.org:443"}, Limits: terms().Limits, Budget: terms().Budget, NotAfter: time.Now().Add(time.Minute),
		})},
	}
	var there []vector
	if text, err := os.ReadFile(file); err == nil {
		if err := json.Unmarshal(text, &there); err != nil {
			t.Fatal(err)
		}
	}
	vectors = slices.DeleteFunc(vectors, func(v vector) bool {
		return slices.ContainsFunc(there, func(old vector) bool { return old.Name == v.Name })
	})
	for i, v := range vectors {
		if v.Now == 0 {
			v.Now = now
		}
		if v.Cluster == "" {
			v.Cluster = cluster
		}
		vectors[i] = judged(v)
	}
	text, err := json.MarshalIndent(append(there, vectors...), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(text, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

func FuzzVerify(f *testing.F) {
	f.Add(chain(f, 0))
	f.Add(chain(f, 4))
	f.Add("acm1.e30.AA")
	f.Fuzz(func(t *testing.T, text string) {
		v, err := mandate.Verify(text, mandate.Options{Cluster: cluster})
		if err != nil && (v.Root != "" || len(v.Chain) != 0 || len(v.Terms.Actions) != 0) {
			t.Errorf("error %v with %+v", err, v)
		}
		if err == nil && len(v.Chain) > mandate.MaxDepth+1 {
			t.Errorf("%d blocks", len(v.Chain))
		}
	})
}

// Signatures that held once are remembered: everything else is judged anew.
func TestWhatIsRememberedHidesNothing(t *testing.T) {
	good := chain(t, 4)
	ok := mandate.Options{Cluster: cluster}
	for range 2 {
		if _, err := mandate.Verify(good, ok); err != nil {
			t.Fatal(err)
		}
	}
	parts := strings.Split(good, ".")
	last := len(parts) - 1
	forged := []byte(parts[last])
	forged[7] = map[bool]byte{true: 'B', false: 'A'}[forged[7] == 'A']
	for name, c := range map[string]struct {
		text string
		opt  mandate.Options
		want error
	}{
		"signature of another block": {strings.Join(append(slices.Clone(parts[:last]), parts[last-2]), "."), ok, mandate.ErrSignature},
		"signature changed":          {strings.Join(append(slices.Clone(parts[:last]), string(forged)), "."), ok, mandate.ErrSignature},
		"signature longer":           {good + strings.Repeat("A", 256), ok, mandate.ErrSignature},
		"ended":                      {good, mandate.Options{Cluster: cluster, Now: time.Now().Add(time.Hour)}, mandate.ErrTime},
		"other audience":             {good, mandate.Options{Cluster: "agenticraft:other"}, mandate.ErrAudience},
	} {
		if v, err := mandate.Verify(c.text, c.opt); !errors.Is(err, c.want) || v.Chain != nil {
			t.Errorf("%s: %+v, %v; want %v", name, v, err, c.want)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	text := chain(b, 4)
	for name, verify := range map[string]func(string, mandate.Options) (mandate.Verified, error){
		"known": mandate.Verify, "cold": mandate.VerifyCold,
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := verify(text, mandate.Options{Cluster: cluster}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// A grant that ends within the second in which it begins lives until that is over.
func TestShortGrants(t *testing.T) {
	key, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	other, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		short := terms()
		short.NotAfter = time.Now().Truncate(time.Second).Add(time.Second - time.Nanosecond)
		if _, err := mandate.Grant(key, mandate.Root{Cluster: "agenticraft:c", Tenant: "t", To: other.ID(), Terms: short}); err != nil && time.Now().Before(short.NotAfter) {
			t.Fatal(err)
		}
	}
}
