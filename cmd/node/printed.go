package main

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/agenticraft/node/a2a"
)

// printed is what the user has seen of each stream, as the program wrote it.
type printed struct{ stdout, stderr []byte }

// live shows a piece of output as long as none before it is missing.
func (a *app) live(p *printed, stream string, offset int64, data []byte) {
	if a.json {
		return
	}
	w, seen := a.stdout, &p.stdout
	if stream == "stderr" {
		w, seen = a.stderr, &p.stderr
	}
	if offset == int64(len(*seen)) {
		_, _ = w.Write(data) // the terminal's trouble is not the program's
		*seen = append(*seen, data...)
	}
}

// rest shows what of the report's output was not shown live.
func (a *app) rest(p printed, rep a2a.Report) {
	fmt.Fprint(a.stdout, unseen(p.stdout, rep.Stdout))
	fmt.Fprint(a.stderr, unseen(p.stderr, rep.Stderr))
}

// unseen is what of text, in which a report holds all output, comes after the
// bytes that were seen. A report has a replacement character where a program
// wrote what is not UTF-8. A text that was cut has nothing after them.
func unseen(seen []byte, text string) string {
	for cut := range min(utf8.UTFMax, len(seen)+1) { // within a character
		as := strings.ToValidUTF8(string(seen[:len(seen)-cut]), "\uFFFD")
		if after, ok := strings.CutPrefix(text, as); ok {
			return after
		}
	}
	return ""
}
