package agent

import (
	"net/http"
	"path"
	"strings"
	"unicode/utf8"
)

// mediaTypes are those that a file's ending tells better than its content. They
// stand here, for a machine's own table would make the answer the machine's.
var mediaTypes = map[string]string{
	".csv": "text/csv", ".css": "text/css", ".htm": "text/html", ".html": "text/html", ".js": "text/javascript",
	".json": "application/json", ".jsonl": "application/jsonl", ".md": "text/markdown", ".parquet": "application/vnd.apache.parquet",
	".py": "text/x-python", ".sh": "application/x-sh", ".svg": "image/svg+xml", ".toml": "application/toml", ".tsv": "text/tab-separated-values",
	".txt": "text/plain", ".wasm": "application/wasm", ".xml": "application/xml", ".yaml": "application/yaml", ".yml": "application/yaml",
}

// mediaType is what a file is taken for, by its ending and, where that says
// nothing, by how it begins. What is called a text and is none is only bytes.
func mediaType(name string, content []byte) string {
	sniffed := http.DetectContentType(content)
	kind, known := mediaTypes[strings.ToLower(path.Ext(name))]
	switch {
	case !known:
		return sniffed
	case strings.HasPrefix(kind, "text/") && !utf8.Valid(content):
		return "application/octet-stream"
	case strings.HasPrefix(kind, "text/"):
		return kind + "; charset=utf-8"
	}
	return kind
}
