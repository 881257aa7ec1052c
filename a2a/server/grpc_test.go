package server_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	a2agrpc "github.com/a2aproject/a2a-go/v2/a2agrpc/v1"
	"github.com/a2aproject/a2a-go/v2/a2apb/v1"
	"github.com/a2aproject/a2a-go/v2/a2apb/v1/pbconv"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/server"
)

func newGRPC(t testing.TB, w *house, read time.Duration) *server.GRPC {
	t.Helper()
	g, err := server.NewGRPC(server.GRPCConfig{Handler: w.Handler, MaxBody: 1 << 20, ReadTimeout: read, Authenticate: func(_ context.Context, shown server.Credential) (server.Caller, error) {
		if shown.Source != "127.0.0.1" {
			t.Errorf("source = %q", shown.Source)
		}
		if strings.HasSuffix(shown.Authorization, " wrong") {
			return server.Caller{}, a2a.Errorf(a2a.CodeUnauthenticated, "no credential in force proves the caller")
		}
		return w.caller(&http.Request{Header: http.Header{"Authorization": {shown.Authorization}}}), nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// openGRPC serves the house's handler on a port of its own.
func openGRPC(t testing.TB, w *house) string { return openGRPCWith(t, w, 0) }

func openGRPCWith(t testing.TB, w *house, read time.Duration) string {
	t.Helper()
	g := newGRPC(t, w, read)
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Serve(ctx, l, 100*time.Millisecond) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// openShared serves it on an HTTP server's port, in clear HTTP/2.
func openShared(t testing.TB, w *house) string {
	t.Helper()
	g := newGRPC(t, w, 0)
	s := httptest.NewUnstartedServer(g)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(func() {
		g.Close()
		s.CloseClientConnections()
		s.Close()
	})
	return s.Listener.Addr().String()
}

func TestStockClientOverGRPC(t *testing.T) {
	for name, open2 := range map[string]func(testing.TB, *house) string{"own port": openGRPC, "shared port": openShared} {
		t.Run(name, func(t *testing.T) {
			w := open(t, &fakePath{run: hello})
			at := sdk.NewAgentInterface(open2(t, w), sdk.TransportProtocolGRPC)
			stockClient(t, w, make(chan struct{}, 1), []*sdk.AgentInterface{at}, a2agrpc.WithGRPCTransport(grpc.WithTransportCredentials(insecure.NewCredentials())))
		})
	}
}

// dialGRPC is a connection to a gRPC port that ends with the test.
func dialGRPC(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestGRPCErrorsHaveStatusAndErrorInfo(t *testing.T) {
	w := open(t, &fakePath{run: hello})
	for name, addr := range map[string]string{"own port": openGRPC(t, w), "shared port": openShared(t, w)} {
		conn := dialGRPC(t, addr)
		c := a2apb.NewA2AServiceClient(conn)
		get := func(ctx context.Context) error {
			_, err := c.GetTask(ctx, &a2apb.GetTaskRequest{Id: "x"})
			return err
		}
		for _, tc := range []struct {
			name, version, key string
			call               func(ctx context.Context) error
			code               codes.Code
			reason, ours       string
		}{
			{"no version", "", "someone", get, codes.FailedPrecondition, "VERSION_NOT_SUPPORTED", "version_not_supported"},
			{"old version", "0.3", "someone", get, codes.FailedPrecondition, "VERSION_NOT_SUPPORTED", "version_not_supported"},
			{"wrong key", "1.0", "wrong", get, codes.Unauthenticated, "UNAUTHENTICATED", "unauthenticated"},
			{"nobody", "1.0", "", get, codes.Unauthenticated, "UNAUTHENTICATED", "unauthenticated"},
			{"no such task", "1.0", "someone", get, codes.NotFound, "TASK_NOT_FOUND", "not_found"},
			{"no message", "1.0", "someone", func(ctx context.Context) error {
				_, err := c.SendMessage(ctx, &a2apb.SendMessageRequest{})
				return err
			}, codes.InvalidArgument, "INVALID_PARAMS", "invalid_request"},
			{"too large", "1.0", "someone", func(ctx context.Context) error {
				_, err := c.GetTask(ctx, &a2apb.GetTaskRequest{Id: strings.Repeat("x", 1<<20+1)})
				return err
			}, codes.ResourceExhausted, "INVALID_REQUEST", "too_large"},
			{"too large streamed", "1.0", "someone", func(ctx context.Context) error {
				s, err := c.SubscribeToTask(ctx, &a2apb.SubscribeToTaskRequest{Id: strings.Repeat("x", 1<<20+1)})
				if err == nil {
					_, err = s.Recv()
				}
				return err
			}, codes.ResourceExhausted, "INVALID_REQUEST", "too_large"},
			{"no push", "1.0", "someone", func(ctx context.Context) error {
				_, err := c.ListTaskPushNotificationConfigs(ctx, &a2apb.ListTaskPushNotificationConfigsRequest{TaskId: "x"})
				return err
			}, codes.FailedPrecondition, "PUSH_NOTIFICATION_NOT_SUPPORTED", "push_notification_not_supported"},
			{"no extended card", "1.0", "someone", func(ctx context.Context) error {
				_, err := c.GetExtendedAgentCard(ctx, &a2apb.GetExtendedAgentCardRequest{})
				return err
			}, codes.FailedPrecondition, "UNSUPPORTED_OPERATION", "unsupported"},
			{"no such method", "1.0", "someone", func(ctx context.Context) error {
				return conn.Invoke(ctx, "/lf.a2a.v1.A2AService/Explode", &a2apb.GetTaskRequest{}, &a2apb.Task{})
			}, codes.Unimplemented, "UNSUPPORTED_OPERATION", "unsupported"},
		} {
			t.Run(name+"/"+tc.name, func(t *testing.T) {
				ctx := t.Context()
				if tc.version != "" {
					ctx = metadata.AppendToOutgoingContext(ctx, "a2a-version", tc.version)
				}
				if tc.key != "" {
					ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+tc.key)
				}
				s := status.Convert(tc.call(ctx))
				if s.Code() != tc.code {
					t.Fatalf("status = %v", s)
				}
				if tc.reason == "" {
					return
				}
				if len(s.Details()) != 1 {
					t.Fatalf("details = %v", s.Details())
				}
				d, ok := s.Details()[0].(*errdetails.ErrorInfo)
				if !ok || d.Reason != tc.reason || d.Domain != sdk.ProtocolDomain || d.Metadata["code"] != tc.ours {
					t.Errorf("detail = %v", d)
				}
			})
		}
	}
}

// Whoever opens a request and does not say it is given up on, at a port of its own
// too. Whoever said it may wait for its answer longer than that.
func TestGRPCRequestsArriveInTime(t *testing.T) {
	goOn := make(chan struct{})
	w := open(t, &fakePath{run: func(ctx context.Context, e a2a.Execution, out server.Updates) a2a.Report {
		<-goOn
		return hello(ctx, e, out)
	}})
	conn := dialGRPC(t, openGRPCWith(t, w, time.Second))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "a2a-version", "1.0", "authorization", "Bearer someone")
	signed, err := a2a.Sign(newKey(t), request(t), a2a.SignOptions{Audience: a2a.Audience(cluster)})
	if err != nil {
		t.Fatal(err)
	}
	said, err := pbconv.ToProtoSendMessageRequest(signed)
	if err != nil {
		t.Fatal(err)
	}
	patient, err := a2apb.NewA2AServiceClient(conn).SendStreamingMessage(ctx, said)
	if err != nil {
		t.Fatal(err)
	}
	mute := map[string]grpc.ClientStream{"GetTask": nil, "SendStreamingMessage": nil}
	for method := range mute {
		if mute[method], err = conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/lf.a2a.v1.A2AService/"+method); err != nil {
			t.Fatal(err)
		}
	}
	for method, s := range mute {
		if err := s.RecvMsg(new(a2apb.Task)); err == nil || ctx.Err() != nil {
			t.Errorf("%s without a message: %v", method, err)
		}
	}
	close(goOn)
	for {
		e, err := patient.Recv()
		if err != nil {
			t.Fatalf("a stream of a request that came: %v", err)
		}
		if e.GetStatusUpdate().GetStatus().GetState() == a2apb.TaskState_TASK_STATE_COMPLETED {
			return
		}
	}
}

// An answer names the extensions that were asked for and are in force (4.6), on both
// ports.
func TestGRPCNamesExtensionsInForce(t *testing.T) {
	w := open(t, &fakePath{run: hello})
	for name, addr := range map[string]string{"own port": openGRPC(t, w), "shared port": openShared(t, w)} {
		conn := dialGRPC(t, addr)
		var got metadata.MD
		ctx := metadata.AppendToOutgoingContext(t.Context(), "a2a-version", a2a.Version, "authorization", "Bearer someone", "a2a-extensions", "https://example.org/x, "+a2a.ExecutionURI)
		if _, err := a2apb.NewA2AServiceClient(conn).ListTasks(ctx, &a2apb.ListTasksRequest{}, grpc.Header(&got)); err != nil {
			t.Fatal(err)
		}
		if all := got.Get("a2a-extensions"); len(all) != 1 || all[0] != a2a.ExecutionURI {
			t.Errorf("%s: the answer names %q", name, all)
		}
	}
}
