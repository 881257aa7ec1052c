package agent

import "testing"

func TestMediaTypes(t *testing.T) {
	for _, tt := range []struct{ name, content, want string }{
		{"d/out.json", "{}", "application/json"},
		{"OUT.CSV", "a,b\n", "text/csv; charset=utf-8"},
		{"out.csv", "\xff\xfe\x00", "application/octet-stream"},
		{"plot", "\x89PNG\r\n\x1a\n", "image/png"},
		{"plot.png", "\x89PNG\r\n\x1a\n", "image/png"},
		{"notes", "hello", "text/plain; charset=utf-8"},
		{"page.html", "<script>", "text/html; charset=utf-8"},
		{"none.txt", "", "text/plain; charset=utf-8"},
		{"raw.bin", "\x00\x01", "application/octet-stream"},
		{".json", "{", "application/json"},
	} {
		if got := mediaType(tt.name, []byte(tt.content)); got != tt.want {
			t.Errorf("mediaType(%q, %q) = %q, want %q", tt.name, tt.content, got, tt.want)
		}
	}
}
