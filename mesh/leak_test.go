package mesh_test

import (
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestMain fails if a test leaves a goroutine of ours or of libp2p's behind.
func TestMain(m *testing.M) {
	code := m.Run()
	for end := time.Now().Add(10 * time.Second); code == 0; time.Sleep(20 * time.Millisecond) {
		left := goroutines()
		if left == "" {
			break
		}
		if time.Now().After(end) {
			os.Stderr.WriteString("goroutines left behind:\n" + left + "\n")
			code = 1
		}
	}
	os.Exit(code)
}

func goroutines() string {
	buf := make([]byte, 4<<20)
	var left []string
	for g := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if !strings.Contains(g, "TestMain") && (strings.Contains(g, "node/mesh") || strings.Contains(g, "libp2p") || strings.Contains(g, "quic-go")) {
			left = append(left, g)
		}
	}
	return strings.Join(left, "\n\n")
}
