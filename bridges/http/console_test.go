package http

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// Every path that the console asks for is a route of this door.
func TestPathsOfTheConsole(t *testing.T) {
	script, err := os.ReadFile("console/console.js")
	if err != nil {
		t.Fatal(err)
	}
	routes := map[string]bool{}
	for _, p := range Patterns() {
		_, path, _ := strings.Cut(p, " ")
		routes[regexp.MustCompile(`\{\w+\}`).ReplaceAllString(path, "{}")] = true
	}
	paths := regexp.MustCompile("['`](/v1/[^'`?]*)").FindAllStringSubmatch(string(script), -1)
	if len(paths) < 10 {
		t.Fatalf("found only %q", paths)
	}
	for _, m := range paths {
		if path := regexp.MustCompile(`\$\{[^}]*\}`).ReplaceAllString(m[1], "{}"); !routes[path] {
			t.Errorf("the console asks for %s, which is no route", path)
		}
	}
}
