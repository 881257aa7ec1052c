package destination_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/agenticraft/node/authz/destination"
)

func TestParse(t *testing.T) {
	for text, want := range map[string][]string{
		"none": nil, "": nil,
		"allow=API.example.org:443":                   {"api.example.org:443"},
		"allow=b:2,a:1,b:2":                           {"a:1", "b:2"},
		"allow=[2001:DB8:0::1]:443,127.0.0.1:8080":    {"127.0.0.1:8080", "[2001:db8::1]:443"},
		"allow=" + strings.Repeat("x", 63) + ".org:1": {strings.Repeat("x", 63) + ".org:1"},
	} {
		got, err := destination.Parse(text)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("Parse(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"all", "allow=", "allow=example.org", "allow=:443", "allow=example.org:0", "allow=example.org:65536", "allow=example.org:0443",
		"allow=example.org:+1", "allow=*.example.org:443", "allow=example.org:*", "allow=*:443", "allow=::1:443", "allow=[fe80::1%eth0]:443", "allow=[::1:443",
		"allow=example..org:1", "allow=-x.org:1", "allow=exa mple.org:1", "allow=example.org:1,", "allow=2130706433:80", "allow=0x7f.1:80", "allow=1.2.3:80",
		"allow=exämple.org:1", "allow=a@b:1", "allow=http://x:1", "allow=" + strings.Repeat("a.", 17) + "b:1", "allow=" + strings.Repeat("x:1,", 20) + "x:1",
	} {
		if got, err := destination.Parse(text); err == nil {
			t.Errorf("Parse(%q) = %v", text, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"none", "allow=a.b:1", "allow=[::1]:2,*:3", "allow=1.2.3.4:5"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := destination.Parse(text)
		if err != nil {
			if got != nil {
				t.Errorf("Parse(%q) = %v with an error", text, got)
			}
			return
		}
		again, err := destination.Parse("allow=" + strings.Join(got, ","))
		if len(got) > 0 && (err != nil || !slices.Equal(got, again)) {
			t.Errorf("%q reads as %v, which reads as %v, %v", text, got, again, err)
		}
		for _, d := range got {
			if p, err := destination.ParsePattern(d); err != nil || p != d {
				t.Errorf("destination %q is the pattern %q, %v", d, p, err)
			}
		}
	})
}
