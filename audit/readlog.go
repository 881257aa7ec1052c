package audit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/agenticraft/node/identity"
)

const (
	// ReadWindow is the time within which reads alike are one entry.
	ReadWindow = time.Minute

	readTick     = 5 * time.Second
	readWait     = 10 * time.Second // for a quorum, per entry
	maxReadPer   = 20               // filters of one principal within a window; more are one entry
	maxReadHeld  = 10_000           // entries that wait; more are counted by action only
	unnamedActor = "others"
)

// ReadLogConfig says for whom reads are written down. Node and Record are needed.
type ReadLogConfig struct {
	Node   identity.ID // whose door was asked
	Record func(ctx context.Context, e Entry) (Ack, error)
	Window time.Duration // 0: [ReadWindow]
	Log    *slog.Logger  // nil: none
}

// ReadLog writes down who reads the log: one entry per principal, filter and
// minute, written afterwards, so that no reader waits and no reader can flood
// the log by reading it. It may be used concurrently. Reads of the newest
// minute are lost if the process is killed.
type ReadLog struct {
	cfg ReadLogConfig

	mu   sync.Mutex // guards the fields below
	held map[readKey]*heldRead
	per  map[string]int // filters held of one actor
}

type readKey struct{ actor, tenant, action, format, filter string }

type heldRead struct {
	body  ReadBody
	since time.Time
}

// NewReadLog makes a read log; its Run must run while it is used.
func NewReadLog(cfg ReadLogConfig) *ReadLog {
	if cfg.Window == 0 {
		cfg.Window = ReadWindow
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &ReadLog{cfg: cfg, held: make(map[readKey]*heldRead), per: make(map[string]int)}
}

// Reading is one read.
type Reading struct {
	By      identity.Principal
	Action  string
	Filter  Filter // what was looked for; the zero value is everything
	At      string // of [ReadState]: the index
	Format  string // of [ReadExport]
	Entries int    // that were read
}

// Note remembers a read. It does not block on the log.
func (l *ReadLog) Note(r Reading) {
	now := time.Now()
	filter := r.recorded()
	text, err := json.Marshal(filter)
	if err != nil {
		panic("internal error: read filter does not marshal: " + err.Error())
	}
	key := readKey{r.By.String(), r.By.Tenant, r.Action, r.Format, string(text)}
	l.mu.Lock()
	defer l.mu.Unlock()
	held, ok := l.held[key]
	if !ok && (l.per[key.actor] >= maxReadPer || len(l.held) >= maxReadHeld) {
		key.filter, filter = "", nil // too many filters: said once, without them
		if len(l.held) >= maxReadHeld {
			key = readKey{actor: unnamedActor, action: r.Action}
		}
		held, ok = l.held[key]
	}
	if !ok {
		since := now
		if r.Action == ReadFollowStart || r.Action == ReadFollowEnd {
			since = time.Time{} // told as soon as may be
		}
		held = &heldRead{since: since, body: ReadBody{
			Action: r.Action, Door: l.cfg.Node, Filter: filter, Format: key.format, From: FormatTime(now),
		}}
		l.held[key] = held
		l.per[key.actor]++
	}
	held.body.Count++
	held.body.Entries += int64(r.Entries)
	held.body.Until = FormatTime(now)
}

// Record writes a read down at once and returns when it is durable on a
// quorum: an export waits for it, and follow's start and end are told so.
func (l *ReadLog) Record(ctx context.Context, r Reading) (Ack, error) {
	now := FormatTime(time.Now())
	body := ReadBody{
		Action: r.Action, Count: 1, Door: l.cfg.Node, Entries: int64(r.Entries), Filter: r.recorded(), Format: r.Format, From: now, Until: now,
	}
	return l.write(ctx, r.By.String(), r.By.Tenant, body)
}

func (l *ReadLog) write(ctx context.Context, actor, tenant string, body ReadBody) (Ack, error) {
	text, err := MarshalBody(body)
	if err != nil {
		return Ack{}, err
	}
	return l.cfg.Record(ctx, Entry{Kind: KindRead, Actor: actor, Tenant: tenant, Body: text})
}

// Run writes what was noted until ctx is done, and then what is left.
func (l *ReadLog) Run(ctx context.Context) error {
	tick := time.NewTicker(min(readTick, l.cfg.Window))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			l.flush(ctx, time.Now().Add(-l.cfg.Window))
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			l.flush(last, time.Now())
			return nil
		}
	}
}

// flush writes the reads whose window began before then.
func (l *ReadLog) flush(ctx context.Context, then time.Time) {
	l.mu.Lock()
	due := make(map[readKey]*heldRead)
	for key, held := range l.held {
		if !held.since.After(then) {
			due[key] = held
			delete(l.held, key)
			if l.per[key.actor]--; l.per[key.actor] <= 0 {
				delete(l.per, key.actor)
			}
		}
	}
	l.mu.Unlock()
	for key, held := range due {
		wait, cancel := context.WithTimeout(ctx, readWait)
		_, err := l.write(wait, key.actor, key.tenant, held.body)
		cancel()
		switch refusal := new(Refusal); {
		case err == nil:
		case errors.As(err, &refusal), errors.Is(err, ErrInvalid):
			l.cfg.Log.ErrorContext(ctx, "read not recorded", "actor", key.actor, "err", err)
		default:
			l.cfg.Log.WarnContext(ctx, "read not recorded yet", "actor", key.actor, "err", err)
			l.hold(key, held)
		}
	}
}

// hold takes back what could not be written.
func (l *ReadLog) hold(key readKey, held *heldRead) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if newer, ok := l.held[key]; ok {
		newer.body.Count += held.body.Count
		newer.body.Entries += held.body.Entries
		newer.body.From = held.body.From
		return
	}
	l.held[key] = held
	l.per[key.actor]++
}

// recorded is the filter as the log may hold it; nil for everything.
func (r Reading) recorded() *ReadFilter {
	text := r.Filter.Text()
	for _, name := range []*string{&text.Actor, &text.OnBehalf, &text.Resource, &text.Task, &text.Policy} {
		*name = recordable(*name)
	}
	text.At = recordable(r.At)
	if text.empty() {
		return nil
	}
	return &text
}

// recordable is a name that may stand in the log: a principal's, a digest, a
// task's id or a resource, else its digest.
//
// INVARIANT: I10, no secret reaches a log.
func recordable(name string) string {
	if name == "" || !plain(name, maxName) {
		return digestName(name)
	}
	sort, rest, ok := strings.Cut(name, ":")
	switch sort {
	case "agent", "service", "user", "node", "language", "sandbox", "runtime", "tenant", "role", "key", "policy", "mandate", "principal", "rule", "task":
		if ok && rest != "" && !strings.Contains(rest, "ac_") {
			return name
		}
	}
	if _, err := strconv.ParseUint(name, 10, 63); err == nil || strings.Trim(name, "0123456789abcdef") == "" {
		return name // an index, a task's id, a digest
	}
	return digestName(name)
}

func digestName(name string) string {
	if name == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(name))
	return "sha256:" + hex.EncodeToString(sum[:])
}
