//go:build linux

package docker_test

import (
	"encoding/json"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agenticraft/node/sandbox/docker"
)

// An engine that offers gVisor, so that named pipes reach the node, is asked for
// it, and the result would say so; any other is asked for its default. No engine
// with gVisor can be had everywhere, so this one only answers as they do.
func TestContainersGetGVisorWhereItIs(t *testing.T) {
	for name, tt := range map[string]struct{ runtimes, want, syscalls string }{
		"offered":       {`{"runc":{"path":"runc"},"runsc":{"path":"/usr/bin/runsc","runtimeArgs":["--platform=systrap","--host-fifo=open"]}}`, "runsc", "gvisor"},
		"with a table":  {`{"runc":{"path":"runc"},"runsc":{"path":"/usr/bin/runsc","runtimeArgs":["--host-fifo=open","--oci-seccomp"]}}`, "runsc", "gvisor+seccomp"},
		"without pipes": {`{"runc":{"path":"runc"},"runsc":{"path":"/usr/bin/runsc"}}`, "", "seccomp"},
		"not offered":   {`{"runc":{"path":"runc"}}`, "", "seccomp"},
	} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			asked := []string{}
			socket := filepath.Join(t.TempDir(), "engine.sock")
			l, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			engine := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Api-Version", "1.41")
				w.Header().Set("Content-Type", "application/json")
				switch {
				case strings.HasSuffix(r.URL.Path, "/info"):
					_, _ = w.Write([]byte(`{"OSType":"linux","CgroupVersion":"2","MemoryLimit":true,"PidsLimit":true,"CpuCfsQuota":true,"SecurityOptions":["name=seccomp,profile=default"],"Runtimes":` + tt.runtimes + `}`))
				case strings.HasSuffix(r.URL.Path, "/containers/create"):
					var body struct{ HostConfig struct{ Runtime string } }
					_ = json.NewDecoder(r.Body).Decode(&body) // an empty one is seen below
					mu.Lock()
					asked = append(asked, body.HostConfig.Runtime)
					mu.Unlock()
					http.Error(w, `{"message":"no more than that"}`, http.StatusInternalServerError)
				case strings.HasPrefix(r.URL.Path, "/v1.41/images/"):
					_, _ = w.Write([]byte(`{"Id":"sha256:0"}`))
				default:
					_, _ = w.Write([]byte(`[]`))
				}
			})}
			served := make(chan struct{})
			go func() { defer close(served); _ = engine.Serve(l) }()
			t.Cleanup(func() { _ = engine.Close(); <-served })
			b := open(t, docker.Config{Socket: socket, Runtimes: nobody{}, Images: map[string]string{"python": "python:3"}})
			if d := b.Describe(); !d.Available || d.Enforces["syscalls"] != tt.syscalls {
				t.Errorf("Describe = %+v, want system calls held by %s", d, tt.syscalls)
			}
			if _, err := b.Run(t.Context(), python1("r", "result = 1"), nil); err == nil {
				t.Error("a container that was not made has a result")
			}
			mu.Lock()
			defer mu.Unlock()
			if len(asked) != 1 || asked[0] != tt.want {
				t.Errorf("asked for containers with runtimes %q, want %q", asked, tt.want)
			}
		})
	}
}
