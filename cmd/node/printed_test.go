package main

import "testing"

func TestWhatWasSeenIsNotShownAgain(t *testing.T) {
	for _, tt := range []struct{ seen, text, want string }{
		{"", "all\n", "all\n"},
		{"al", "all\n", "l\n"},
		{"all\n", "all\n", ""},
		{"\x00\x01\xff", "\x00\x01\uFFFD", ""},
		{"a\xff\xfe\xfdb", "a\uFFFDb and more", " and more"},
		{"ü\xc3", "üü!", "ü!"},       // seen up to the middle of a character
		{"\xff\xff", "\uFFFD!", "!"}, // one replacement for all in a row
		{"a long output", "a long", ""},
		{"another", "text", ""},
	} {
		if got := unseen([]byte(tt.seen), tt.text); got != tt.want {
			t.Errorf("of %q, %q seen, %q is left, want %q", tt.text, tt.seen, got, tt.want)
		}
	}
}
