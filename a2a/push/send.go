package push

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a"
)

const (
	maxAnswer  = 4 << 10 // bytes of a receiver's answer that are read, to keep the connection
	idlePeriod = 30 * time.Second
)

// sender makes the calls.
type sender struct {
	client  *http.Client
	timeout time.Duration
}

// newSender makes a client that dials through the guard, whatever the
// environment says about proxies, and follows no redirect: where one leads, the
// receiver's owner did not say.
func newSender(cfg Config) *sender {
	dialer := &net.Dialer{Timeout: cfg.Timeout, ControlContext: cfg.Guard.control}
	return &sender{timeout: cfg.Timeout, client: &http.Client{
		Transport: &http.Transport{
			Proxy:                  nil,
			DialContext:            dialer.DialContext,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: cfg.Roots},
			ForceAttemptHTTP2:      true,
			DisableCompression:     true,
			MaxIdleConnsPerHost:    maxPerHost,
			MaxConnsPerHost:        maxPerHost,
			IdleConnTimeout:        idlePeriod,
			TLSHandshakeTimeout:    cfg.Timeout,
			MaxResponseHeaderBytes: maxAnswer,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func (s *sender) close() { s.client.CloseIdleConnections() }

// answer is how a call went: err nil if the receiver took it.
type answer struct {
	err   error
	gone  bool          // there is no such receiver, for good
	after time.Duration // when it asks to be called again
}

func (s *sender) post(ctx context.Context, cfg *sdk.PushConfig, body []byte, signature string) answer {
	ctx, cancel := context.WithTimeout(withScheme(ctx, cfg.URL), s.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, cfg.URL, bytes.NewReader(body))
	if err != nil {
		return answer{err: errors.New("the URL is not one")} // the error would show it
	}
	req.Header.Set("Content-Type", "application/a2a+json")
	req.Header.Set("User-Agent", "agenticraft")
	req.Header.Set(sdk.SvcParamVersion, a2a.Version)
	req.Header.Set(a2a.NotificationHeader, signature)
	if cfg.Token != "" {
		req.Header.Set(a2a.NotificationTokenHeader, cfg.Token)
	}
	if cfg.Auth != nil && cfg.Auth.Credentials != "" {
		req.Header.Set("Authorization", cfg.Auth.Scheme+" "+cfg.Auth.Credentials)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return answer{err: bare(err)}
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer) // its words do not matter
	if resp.StatusCode/100 == 2 {
		return answer{}
	}
	out := answer{err: fmt.Errorf("the receiver answered %d", resp.StatusCode), gone: resp.StatusCode == http.StatusGone}
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds > 0 {
		out.after = time.Duration(min(seconds, int(time.Hour/time.Second))) * time.Second
	}
	return out
}

// bare is an error without the URL, which may hold a secret.
func bare(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

func hostOf(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	return strings.ToLower(u.Host)
}
