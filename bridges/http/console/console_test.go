package console

import (
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

func TestFilesAndHeaders(t *testing.T) {
	for path, status := range map[string]int{
		"/ui/": 200, "/ui/console.js": 200, "/ui/console.css": 200, "/ui/icon.svg": 200,
		"/ui": 404, "/ui/index.html": 404, "/ui/console.go": 404, "/ui/x": 404, "/ui//console.js": 404, "/": 404, "/ui/./console.js": 404,
		"/ui/../console.js": 404, "/ui/..%2fconsole.go": 404, "/ui/%2e%2e/%2e%2e/etc/passwd": 404, "/ui/console.js%00": 404, "/ui/console.js/": 404,
	} {
		w := httptest.NewRecorder()
		Handler().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code != status {
			t.Errorf("%s: %d, want %d", path, w.Code, status)
		}
		if status != 200 {
			continue
		}
		h := w.Header()
		if csp := h.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'; script-src 'self';") || strings.Contains(csp, "unsafe") || !strings.Contains(csp, "frame-ancestors 'none'") {
			t.Errorf("%s: Content-Security-Policy %q", path, csp)
		}
		if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") != "no-referrer" || !strings.Contains(h.Get("Content-Type"), "charset=utf-8") || w.Body.Len() == 0 {
			t.Errorf("%s: %v", path, h)
		}
	}
}

// Nothing on the page is a script or a style but the files, nothing comes from
// elsewhere, and what a node says never becomes markup.
func TestNothingInlineNorFromElsewhere(t *testing.T) {
	for name, banned := range map[string]string{
		"index.html":  `(?i)<script[^>]*>[^<]|<style|\son\w+=|\sstyle=|javascript:|https?:|src="//|href="//`,
		"console.js":  `innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|setTimeout\("|localStorage|document\.cookie|https?:`,
		"console.css": `(?i)@import|url\(`,
		"icon.svg":    `(?i)<script|<style|\son\w+=|href=|url\(`,
	} {
		text, err := files.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if found := regexp.MustCompile(banned).Find(text); found != nil {
			t.Errorf("%s holds %q", name, found)
		}
	}
}

// Every control has a name that is read aloud.
func TestControlsAreLabelled(t *testing.T) {
	page, err := files.ReadFile("index.html")
	if err != nil {
		t.Fatal(err)
	}
	controls := regexp.MustCompile(`<(?:input|select|textarea) id="(\w+)"`).FindAllSubmatch(page, -1)
	if len(controls) < 6 {
		t.Fatalf("found only %q", controls)
	}
	for _, c := range controls {
		if !strings.Contains(string(page), `<label for="`+string(c[1])+`">`) {
			t.Errorf("%s has no label", c[1])
		}
	}
	script, err := files.ReadFile("console.js")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`by\('([\w-]+)'\)`).FindAllSubmatch(script, -1) {
		if !strings.Contains(string(page), `id="`+string(m[1])+`"`) {
			t.Errorf("the script looks for %s, which the page has not", m[1])
		}
	}
}
