package sandbox_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/agenticraft/node/sandbox"
)

func TestParseNetwork(t *testing.T) {
	for text, want := range map[string]string{
		"":                              "none",
		"none":                          "none",
		"allow=PyPI.org.:443":           "allow=pypi.org:443",
		"allow=b:2,a:1, a:1 ,a:10":      "allow=a:1,a:10,b:2",
		"allow=10.0.0.1:80":             "allow=10.0.0.1:80",
		"allow=[2001:DB8::0:1]:80":      "allow=[2001:db8::1]:80",
		"allow=[::ffff:10.0.0.1]:80":    "allow=10.0.0.1:80",
		"allow=xn--mnchen-3ya.de:65535": "allow=xn--mnchen-3ya.de:65535",
	} {
		got, err := sandbox.ParseNetwork(text)
		if err != nil || sandbox.FormatNetwork(got) != want {
			t.Errorf("ParseNetwork(%q) = %q, %v, want %q", text, sandbox.FormatNetwork(got), err, want)
		}
	}
	for _, text := range []string{
		"all", "allow=", "allow=a", "allow=a:", "allow=a:0", "allow=a:65536", "allow=a:+1", "allow=a:01", "allow=:1", "allow=a:1,", "allow=*:1",
		"allow=*.a:1", "allow=a b:1", "allow=a/b:1", "allow=u@a:1", "allow=a:1:1", "allow=::1:1", "allow=[::1:1", "allow=[1.2.3.4]:1",
		"allow=[fe80::1%lo]:1", "allow=1:1", "allow=2130706433:1", "allow=0x7f000001:1", "allow=0177.0.0.1:1", "allow=127.1:1", "allow=1.2.3.4.5:1",
		"allow=a.1:1", "allow=a..b:1", "allow=-a:1", "allow=münchen.de:1", "allow=a\x00:1", "allow=a\n:1", "allow=" + strings.Repeat("a", 64) + ":1",
		"allow=" + strings.Repeat("a.", 127) + "a:1", "allow=" + strings.TrimSuffix(strings.Repeat("a:1,b:1,c:1,d:1,e:1,f:1,g:1,h:1,i:1,", 2), ","),
	} {
		if got, err := sandbox.ParseNetwork(text); err == nil || !errors.Is(err, sandbox.ErrSpec) {
			t.Errorf("ParseNetwork(%q) = %v, %v", text, got, err)
		}
	}
}

func TestSpecTakesOnlyCanonicalDestinations(t *testing.T) {
	spec := sandbox.Spec{ID: "a", Language: "python", Network: []sandbox.Destination{{Host: "B", Port: 1}}}
	if err := spec.Validate(); !errors.Is(err, sandbox.ErrSpec) {
		t.Errorf("Validate = %v", err)
	}
	spec.Network[0].Host = "b"
	if err := spec.Validate(); err != nil {
		t.Error(err)
	}
}

func FuzzParseNetwork(f *testing.F) {
	for _, text := range []string{"none", "allow=a:1,[::1]:2", "allow=10.0.0.1:80", "allow=0x7f.1:1"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		all, err := sandbox.ParseNetwork(text)
		if err != nil {
			if all != nil {
				t.Fatal("an error and a list")
			}
			return
		}
		again, err := sandbox.ParseNetwork(sandbox.FormatNetwork(all))
		if err != nil || !slices.Equal(again, all) {
			t.Fatalf("%q is read as %v, and that as %v, %v", text, all, again, err)
		}
		for _, d := range all {
			// What reads like an address is one, written in the one way.
			last := d.Host[strings.LastIndexByte(d.Host, '.')+1:]
			if a, err := netip.ParseAddr(d.Host); err != nil && last[0] >= '0' && last[0] <= '9' || err == nil && a.String() != d.Host {
				t.Fatalf("%q has the host %q", text, d.Host)
			}
		}
	})
}
