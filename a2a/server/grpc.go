package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/a2agrpc/v1"
	"github.com/a2aproject/a2a-go/v2/a2apb/v1"
	"github.com/a2aproject/a2a-go/v2/a2apb/v1/pbconv"
	"github.com/a2aproject/a2a-go/v2/a2asrv"
	"github.com/a2aproject/a2a-go/v2/log"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	rpcstatus "google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/agenticraft/node/a2a"
)

// GRPCConfig of the gRPC binding.
type GRPCConfig struct {
	Handler a2asrv.RequestHandler // required; a *Handler
	// Authenticate proves whom a credential names; nobody is no error. Required.
	Authenticate func(ctx context.Context, shown Credential) (Caller, error)
	TLS          *tls.Config   // of a port of its own; nil: none
	MaxBody      int           // bytes of a request; default [a2a.MaxRequestBytes]
	ReadTimeout  time.Duration // for a whole request, at a port of its own; default 30 s
	Log          *slog.Logger  // default: none
}

// GRPC is the A2A gRPC binding: the SDK's codec, and around it the checks that
// [HTTP] makes: version, credential, size, and errors with an ErrorInfo. It
// serves a port of its own ([GRPC.Serve]) or, as an http.Handler, requests of
// HTTP/2 that another server took, which is slower.
type GRPC struct {
	server *grpc.Server
	cfg    GRPCConfig
}

const (
	readBeyond     = 2    // times the cap are read, for us to refuse in words; gRPC itself refuses more
	maxGRPCStreams = 1000 // at the same time, of one connection
	maxGRPCHeaders = 64 << 10
	grpcIdle       = 2 * time.Minute
	grpcPing       = 30 * time.Second
	grpcHandshake  = 10 * time.Second
)

// NewGRPC makes the binding.
func NewGRPC(cfg GRPCConfig) (*GRPC, error) {
	if cfg.Handler == nil || cfg.Authenticate == nil {
		return nil, errors.New("a2a server: gRPC needs Handler and Authenticate")
	}
	if cfg.MaxBody == 0 {
		cfg.MaxBody = a2a.MaxRequestBytes
	}
	if cfg.ReadTimeout == 0 {
		cfg.ReadTimeout = defaultRead
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	g := &GRPC{cfg: cfg}
	secure := insecure.NewCredentials()
	if cfg.TLS != nil {
		secure = credentials.NewTLS(cfg.TLS)
	}
	g.server = grpc.NewServer(
		grpc.Creds(secure),
		grpc.MaxRecvMsgSize(readBeyond*cfg.MaxBody),
		grpc.MaxConcurrentStreams(maxGRPCStreams),
		grpc.MaxHeaderListSize(maxGRPCHeaders),
		grpc.ConnectionTimeout(grpcHandshake),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: grpcIdle, Time: grpcPing}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: grpcPing / 3, PermitWithoutStream: true}),
		grpc.ForceServerCodecV2(reading{encoding.GetCodecV2(protocodec.Name), cfg.MaxBody}),
		grpc.InTapHandle(g.expect),
		grpc.UnaryInterceptor(g.unary),
		grpc.StreamInterceptor(g.stream),
		grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error {
			return grpcError(a2a.Errorf(a2a.CodeUnsupported, "there is no such method"), codes.Unimplemented)
		}),
	)
	handler := worded{cfg.Handler, cfg.Log}
	a2apb.RegisterA2AServiceServer(g.server, grpcCodec{a2agrpc.NewHandler(handler), handler})
	return g, nil
}

// ServeHTTP implements http.Handler, for requests of HTTP/2 only.
func (g *GRPC) ServeHTTP(w http.ResponseWriter, r *http.Request) { g.server.ServeHTTP(w, r) }

// Serve answers on l until ctx is done, then lets running requests end for at
// most grace. It closes l.
func (g *GRPC) Serve(ctx context.Context, l net.Listener, grace time.Duration) error {
	done := make(chan error, 1)
	go func() { done <- g.server.Serve(l) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve gRPC: %w", err)
	case <-ctx.Done():
	}
	hurry := time.AfterFunc(grace, g.server.Stop)
	defer hurry.Stop()
	g.server.GracefulStop()
	if err := <-done; err != nil {
		return fmt.Errorf("serve gRPC: %w", err)
	}
	return nil
}

// Close ends every request at once. It may be called twice.
func (g *GRPC) Close() error {
	g.server.Stop()
	return nil
}

// expect gives a request's message its deadline: gRPC itself would wait for the
// rest of one as long as the connection lives. A server that only lends us its
// requests has a deadline of its own.
func (g *GRPC) expect(ctx context.Context, _ *tap.Info) (context.Context, error) {
	ctx, cancel := context.WithCancel(ctx)
	overdue := time.AfterFunc(g.cfg.ReadTimeout, cancel)
	context.AfterFunc(ctx, func() { overdue.Stop() })
	return context.WithValue(ctx, overdueKey, overdue), nil
}

// arrived ends the wait for a request's message.
func arrived(ctx context.Context) {
	if overdue, ok := ctx.Value(overdueKey).(*time.Timer); ok {
		overdue.Stop()
	}
}

func (g *GRPC) unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	arrived(ctx)
	ctx, err := g.admit(ctx)
	if err != nil {
		return nil, err
	}
	if err := checkMessage(req, g.cfg.MaxBody); err != nil {
		return nil, grpcError(err, codes.OK)
	}
	out, err := next(ctx, req)
	return out, withInfo(err)
}

func (g *GRPC) stream(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	ctx, err := g.admit(s.Context())
	if err != nil {
		return err
	}
	return withInfo(next(srv, admitted{s, ctx, g.cfg.MaxBody}))
}

type admitted struct {
	grpc.ServerStream
	ctx context.Context
	max int // bytes of a message
}

func (a admitted) Context() context.Context { return a.ctx }

func (a admitted) RecvMsg(m any) error {
	if err := a.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	arrived(a.ctx)
	if err := checkMessage(m, a.max); err != nil {
		return grpcError(err, codes.OK)
	}
	return nil
}

// reading is the codec of protobuf, but what it cannot read is no fault of the
// server's: gRPC itself answers INTERNAL, and to what is too large without an
// ErrorInfo, before an interceptor is asked. Such a message is marked, for
// [checkMessage] to refuse.
type reading struct {
	encoding.CodecV2
	max int // bytes of a message
}

// What marks a message is a field that none has, the last of all numbers.
var (
	unreadable = marked(1)
	oversized  = marked(2)
)

func marked(why uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, protowire.MaxValidNumber, protowire.VarintType), why)
}

func (c reading) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(proto.Message)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	if data.Len() > c.max {
		m.ProtoReflect().SetUnknown(oversized)
	} else if c.CodecV2.Unmarshal(data, v) != nil {
		proto.Reset(m)
		m.ProtoReflect().SetUnknown(unreadable)
	}
	return nil
}

// checkMessage refuses what could not be read, and what the bounds forbid.
func checkMessage(m any, most int) *a2a.Error {
	if p, ok := m.(proto.Message); ok {
		switch unknown := p.ProtoReflect().GetUnknown(); {
		case bytes.Equal(unknown, unreadable):
			return a2a.Errorf(a2a.CodeInvalidRequest, "not a valid %s", p.ProtoReflect().Descriptor().Name())
		case bytes.Equal(unknown, oversized):
			return a2a.Errorf(a2a.CodeTooLarge, "the request has more than %d bytes", most)
		}
	}
	return checkProto(m)
}

// admit checks the version and proves the caller.
func (g *GRPC) admit(ctx context.Context) (context.Context, error) {
	meta, _ := metadata.FromIncomingContext(ctx)
	one := func(name string) string { return strings.Join(meta.Get(name), ", ") } // as oneHeader
	if err := checkVersion(one(sdk.SvcParamVersion)); err != nil {
		return nil, grpcError(err, codes.OK)
	}
	shown := Credential{Authorization: one("authorization")}
	if p, ok := peer.FromContext(ctx); ok {
		shown.Source = p.Addr.String()
		if host, _, err := net.SplitHostPort(shown.Source); err == nil {
			shown.Source = host
		}
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok {
			shown.Certificates = info.State.PeerCertificates
		}
	}
	caller, err := g.cfg.Authenticate(ctx, shown)
	if err != nil {
		return nil, grpcFailure(ctx, g.cfg.Log, err)
	}
	if active := activeExtensions(meta.Get(sdk.SvcParamExtensions)); active != "" {
		if err := grpc.SetHeader(ctx, metadata.Pairs(sdk.SvcParamExtensions, active)); err != nil {
			return nil, grpcFailure(ctx, g.cfg.Log, err)
		}
	}
	ctx = log.AttachLogger(ctx, slog.New(slog.DiscardHandler)) // what the codec logs is about clients that have gone
	return WithCaller(ctx, caller), nil
}

// grpcFailure words any error for the caller.
func grpcFailure(ctx context.Context, log *slog.Logger, err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*a2a.Error](err); ok {
		return grpcError(e, codes.OK)
	}
	if ctx.Err() != nil {
		return grpcError(a2a.Errorf(a2a.CodeUnavailable, "the request ended before its answer"), codes.OK)
	}
	return grpcError(internalError(ctx, log, err), codes.OK)
}

// grpcError is e as a gRPC status with an ErrorInfo. Code OK follows from the
// error.
func grpcError(e *a2a.Error, code codes.Code) error {
	if code == codes.OK {
		if err := code.UnmarshalJSON([]byte(`"` + statusOf(e).rpc + `"`)); err != nil {
			code = codes.Internal
		}
	}
	s := rpcstatus.New(code, e.Error())
	d := info(e).Value
	detail := &errdetails.ErrorInfo{}
	detail.Reason, _ = d["reason"].(string)
	detail.Domain, _ = d["domain"].(string)
	detail.Metadata, _ = d["metadata"].(map[string]string)
	if detailed, err := s.WithDetails(detail); err == nil {
		s = detailed
	}
	return s.Err()
}

// withInfo gives errors of the codec itself an ErrorInfo too.
func withInfo(err error) error {
	s, ok := rpcstatus.FromError(err)
	if err == nil || !ok || len(s.Details()) > 0 {
		return err
	}
	switch s.Code() {
	case codes.InvalidArgument:
		return grpcError(a2a.Errorf(a2a.CodeInvalidRequest, "%s", s.Message()), s.Code())
	case codes.ResourceExhausted:
		return grpcError(a2a.Errorf(a2a.CodeTooLarge, "%s", s.Message()), s.Code())
	case codes.Unimplemented:
		return grpcError(a2a.Errorf(a2a.CodeUnsupported, "%s", s.Message()), s.Code())
	}
	return err
}

// grpcCodec is the SDK's codec, but for the token of the next page of push
// configurations, which that one drops.
type grpcCodec struct {
	*a2agrpc.Handler
	handler worded
}

// ListTaskPushNotificationConfigs implements a2apb.A2AServiceServer.
func (c grpcCodec) ListTaskPushNotificationConfigs(ctx context.Context, in *a2apb.ListTaskPushNotificationConfigsRequest) (*a2apb.ListTaskPushNotificationConfigsResponse, error) {
	req, err := pbconv.FromProtoListTaskPushConfigRequest(in)
	if err != nil {
		return nil, grpcError(a2a.Errorf(a2a.CodeInvalidRequest, "not a valid %s: %s", in.ProtoReflect().Descriptor().Name(), err), codes.OK)
	}
	page, err := c.handler.ListTaskPushConfigs(ctx, req)
	if err != nil {
		return nil, err
	}
	out, err := pbconv.ToProtoListTaskPushConfigResponse(page)
	return word(ctx, c.handler, out, err)
}

// worded is a handler whose errors are gRPC's.
type worded struct {
	a2asrv.RequestHandler
	log *slog.Logger
}

func word[T any](ctx context.Context, w worded, v T, err error) (T, error) {
	return v, grpcFailure(ctx, w.log, err)
}

func (w worded) wordAll(ctx context.Context, events iter.Seq2[sdk.Event, error]) iter.Seq2[sdk.Event, error] {
	return func(yield func(sdk.Event, error) bool) {
		for e, err := range events {
			if !yield(e, grpcFailure(ctx, w.log, err)) {
				return
			}
		}
	}
}

func (w worded) GetTask(ctx context.Context, req *sdk.GetTaskRequest) (*sdk.Task, error) {
	v, err := w.RequestHandler.GetTask(ctx, req)
	return word(ctx, w, v, err)
}

func (w worded) ListTasks(ctx context.Context, req *sdk.ListTasksRequest) (*sdk.ListTasksResponse, error) {
	v, err := w.RequestHandler.ListTasks(ctx, req)
	return word(ctx, w, v, err)
}

func (w worded) CancelTask(ctx context.Context, req *sdk.CancelTaskRequest) (*sdk.Task, error) {
	v, err := w.RequestHandler.CancelTask(ctx, req)
	return word(ctx, w, v, err)
}

func (w worded) SendMessage(ctx context.Context, req *sdk.SendMessageRequest) (sdk.SendMessageResult, error) {
	v, err := w.RequestHandler.SendMessage(ctx, req)
	return word(ctx, w, v, err)
}

func (w worded) SubscribeToTask(ctx context.Context, req *sdk.SubscribeToTaskRequest) iter.Seq2[sdk.Event, error] {
	return w.wordAll(ctx, w.RequestHandler.SubscribeToTask(ctx, req))
}

func (w worded) SendStreamingMessage(ctx context.Context, req *sdk.SendMessageRequest) iter.Seq2[sdk.Event, error] {
	return w.wordAll(ctx, w.RequestHandler.SendStreamingMessage(ctx, req))
}

func (w worded) GetTaskPushConfig(ctx context.Context, req *sdk.GetTaskPushConfigRequest) (*sdk.PushConfig, error) {
	v, err := w.RequestHandler.GetTaskPushConfig(ctx, req)
	return word(ctx, w, v, err)
}

func (w worded) ListTaskPushConfigs(ctx context.Context, req *sdk.ListTaskPushConfigRequest) (*sdk.ListTaskPushConfigResponse, error) {
	v, err := w.RequestHandler.ListTaskPushConfigs(ctx, req)
	return word(ctx, w, v, err)
}

func (w worded) CreateTaskPushConfig(ctx context.Context, req *sdk.PushConfig) (*sdk.PushConfig, error) {
	v, err := w.RequestHandler.CreateTaskPushConfig(ctx, req)
	return word(ctx, w, v, err)
}

func (w worded) DeleteTaskPushConfig(ctx context.Context, req *sdk.DeleteTaskPushConfigRequest) error {
	return grpcFailure(ctx, w.log, w.RequestHandler.DeleteTaskPushConfig(ctx, req))
}

func (w worded) GetExtendedAgentCard(ctx context.Context, req *sdk.GetExtendedAgentCardRequest) (*sdk.AgentCard, error) {
	v, err := w.RequestHandler.GetExtendedAgentCard(ctx, req)
	return word(ctx, w, v, err)
}
