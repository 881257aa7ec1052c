package consensus

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// hclogLogger is raft's logger type, named once.
type hclogLogger = hclog.InterceptLogger

// raftLogger passes raft's own log on, one level lower: what operators should
// know of it, the group says itself.
func raftLogger(to *slog.Logger) hclogLogger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Level: hclog.Off, Output: io.Discard})
	l.RegisterSink(&raftSink{to})
	return l
}

type raftSink struct{ to *slog.Logger }

func (s *raftSink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	as := slog.LevelDebug
	if level >= hclog.Error {
		as = slog.LevelInfo
	}
	ctx := context.Background()
	if !s.to.Enabled(ctx, as) {
		return
	}
	var attrs []slog.Attr
	for i := 0; i+1 < len(args); i += 2 {
		value := args[i+1]
		if f, ok := value.(hclog.Format); ok && len(f) > 0 {
			value = fmt.Sprintf(fmt.Sprint(f[0]), f[1:]...)
		}
		attrs = append(attrs, slog.Any(fmt.Sprint(args[i]), value))
	}
	s.to.LogAttrs(ctx, as, "raft", append([]slog.Attr{slog.String("said", msg)}, attrs...)...)
}
