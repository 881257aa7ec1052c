//go:build linux

package main

import (
	"context"
	"path"
	"slices"
	"testing"

	wasi "github.com/tetratelabs/wazero/experimental/sys"

	"github.com/agenticraft/node/sandbox/worker/protocol"
)

func disk(inputs ...protocol.Input) *files {
	return newFiles(inputs, protocol.Order{FileSize: 100, Files: 4}, 150)
}

func write(t *testing.T, f *files, name, text string, flag wasi.Oflag) wasi.Errno {
	t.Helper()
	o, errno := f.OpenFile(name, flag, 0)
	if errno != 0 {
		return errno
	}
	_, errno = o.Write([]byte(text))
	return errno
}

func TestFilesOfAModule(t *testing.T) {
	f := disk(protocol.Input{Path: "a/b/in.txt", Content: []byte("in")}, protocol.Input{Path: "same", Content: []byte("same")})
	const create = wasi.O_CREAT | wasi.O_WRONLY
	for _, tt := range []struct {
		what string
		got  wasi.Errno
		want wasi.Errno
	}{
		{"new file", write(t, f, "new", "one", create), 0},
		{"append", write(t, f, "new", "two", wasi.O_WRONLY|wasi.O_APPEND), 0},
		{"change", write(t, f, "a/b/in.txt", "out", wasi.O_RDWR), 0},
		{"above the root", write(t, f, "../../etc/x", "x", create), wasi.ENOENT},
		{"above the root, plainly", write(t, f, "../up", "x", create), 0}, // is /up
		{"through a file", write(t, f, "same/x", "x", create), wasi.ENOTDIR},
		{"into a folder", write(t, f, "a", "x", wasi.O_WRONLY), wasi.EISDIR},
		{"once more", write(t, f, "new", "x", create|wasi.O_EXCL), wasi.EEXIST},
		{"too large", write(t, f, "new", string(make([]byte, 200)), wasi.O_WRONLY|wasi.O_APPEND), wasi.EIO},
		{"scratch", write(t, f, "tmp/x", "x", create), 0},
		{"folder", f.Mkdir("d", 0), 0},
		{"folder again", f.Mkdir("d", 0), wasi.EEXIST},
		{"rename", f.Rename("new", "d/moved"), 0},
		{"a folder into itself", f.Rename("d", "d/e"), wasi.EINVAL},
		{"a folder onto a file", f.Rename("a", "same"), wasi.ENOTDIR},
		{"a full folder", f.Rmdir("d"), wasi.ENOTEMPTY},
		{"a folder as file", f.Unlink("d"), wasi.EISDIR},
		{"the root", f.Rmdir("/"), wasi.EEXIST},
		{"link", f.Symlink("/etc/passwd", "l"), wasi.ENOSYS},
		{"result", write(t, f, "result.json", "1", create), 0},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: %v, want %v", tt.what, tt.got, tt.want)
		}
	}
	var left []string
	for _, l := range f.left(resultFile) {
		left = append(left, l.Path+"="+string(l.Content))
	}
	if want := []string{"a/b/in.txt=out", "d/moved=onetwo", "up=x"}; !slices.Equal(left, want) {
		t.Errorf("left is %q, want %q", left, want)
	}
	dir, errno := f.OpenFile("/", 0, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	var names []string
	for {
		part, errno := dir.Readdir(2)
		if errno != 0 || len(part) == 0 {
			break
		}
		for _, d := range part {
			names = append(names, d.Name)
		}
	}
	if want := []string{"a", "d", "result.json", "same", "tmp", "up"}; !slices.Equal(names, want) {
		t.Errorf("the root lists %q, want %q", names, want)
	}
}

// A program may make as many files and bytes as it may, and no more, whatever it
// deletes and makes again.
func TestFilesOfAModuleAreCounted(t *testing.T) {
	f := disk()
	const create = wasi.O_CREAT | wasi.O_WRONLY
	for round := range 10 {
		for i := range 5 {
			if errno := write(t, f, string(rune('a'+i)), "0123456789", create); errno != 0 {
				t.Fatalf("round %d, file %d: %v", round, i, errno)
			}
		}
		if errno := write(t, f, "one-more", "", create); errno != wasi.EPERM {
			t.Fatalf("round %d: one file more = %v", round, errno)
		}
		for i := range 5 {
			if errno := f.Unlink(string(rune('a' + i))); errno != 0 {
				t.Fatal(errno)
			}
		}
	}
	if f.room != 150 || f.nodes != 5 {
		t.Errorf("room for %d bytes and %d files is left", f.room, f.nodes)
	}
}

func TestResultsOfModules(t *testing.T) {
	for text, code := range map[string]string{
		`{"a": [1, 2]}`: "", "1": "", "": "result_not_json", "nan": "result_not_json", "1 2": "result_not_json",
		`"` + string(make([]byte, 200)) + `"`: "result_too_large",
	} {
		if _, got, why := checkResult([]byte(text), 100); got != code {
			t.Errorf("checkResult(%.20q) = %q, %s, want %q", text, got, why, code)
		}
	}
}

// Whatever a module's paths are, nothing panics, and nothing is left outside.
func FuzzFilesOfAModule(f *testing.F) {
	f.Add("a/../../b", "c", uint32(9))
	f.Add("", "/", uint32(0))
	f.Fuzz(func(t *testing.T, one, other string, flag uint32) {
		d := disk(protocol.Input{Path: "a/b", Content: []byte("x")})
		if o, errno := d.OpenFile(one, wasi.Oflag(flag), 0); errno == 0 {
			_, _ = o.Write([]byte("y"))
			_ = o.Close()
		}
		_ = d.Mkdir(other, 0)
		_ = d.Rename(one, other)
		_ = d.Unlink(other)
		for _, l := range d.left("") {
			if path.Clean("/"+l.Path) != "/"+l.Path {
				t.Errorf("left %q", l.Path)
			}
		}
	})
}

// Whatever a module's bytes are, the engine takes or refuses them.
func FuzzModule(f *testing.F) {
	f.Add([]byte("\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x03\x02\x01\x00\x07\x0a\x01\x06_start\x00\x00\x0a\x04\x01\x02\x00\x0b"))
	f.Add([]byte("\x00asm\x0d\x00\x01\x00"))
	f.Fuzz(func(t *testing.T, binary []byte) {
		if e, err := newEngine(context.Background(), binary, t.TempDir()); err == nil {
			if err := e.runtime.Close(context.Background()); err != nil {
				t.Error(err)
			}
		}
	})
}
