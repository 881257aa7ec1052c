package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/a2aclient"
	"github.com/a2aproject/a2a-go/v2/a2aclient/agentcard"
	a2agrpc "github.com/a2aproject/a2a-go/v2/a2agrpc/v1"
	"github.com/a2aproject/a2a-go/v2/a2apb/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpccreds "google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/identity"
)

// authority signs certificates.
type authority struct {
	t    testing.TB
	key  crypto.Signer
	cert *x509.Certificate
	pem  []byte
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{t: t, key: key}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.pem = a.sign(template, template, key.Public())
	block, _ := pem.Decode(a.pem)
	if a.cert, err = x509.ParseCertificate(block.Bytes); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *authority) sign(template, parent *x509.Certificate, pub crypto.PublicKey) []byte {
	a.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// issue makes a certificate for a key; a nil key is made, too.
func (a *authority) issue(key crypto.Signer, name string, serial int64, until time.Time, usage x509.ExtKeyUsage) (cert, keyPEM []byte) {
	a.t.Helper()
	if key == nil {
		var err error
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			a.t.Fatal(err)
		}
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	cert = a.sign(&x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: until,
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{usage},
	}, a.cert, key.Public())
	return cert, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func (a *authority) client(key crypto.Signer, name string, until time.Time) tls.Certificate {
	a.t.Helper()
	cert, keyPEM := a.issue(key, name, 9, until, x509.ExtKeyUsageClientAuth)
	pair, err := tls.X509KeyPair(cert, keyPEM)
	if err != nil {
		a.t.Fatal(err)
	}
	return pair
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func write(t testing.TB, name string, text []byte) string {
	t.Helper()
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// tlsNode is a node whose doors speak TLS.
type tlsNode struct {
	c                         *testCluster
	ca                        *authority
	base, at, grpcAt          string // URL and address of the HTTP door, address of gRPC's own
	certFile, keyFile, caFile string
	made                      map[string]string // what init said
	log                       *printout
}

// startTLS starts one that asks its clients for certificates, until the test ends.
func startTLS(t *testing.T, clients, roles string) *tlsNode {
	t.Helper()
	n := &tlsNode{c: &testCluster{t: t, dir: t.TempDir()}, ca: newAuthority(t), made: map[string]string{}, log: new(printout)}
	port, err := devPorts(t.Context(), 0, 3)
	if err != nil {
		t.Fatal(err)
	}
	n.at, n.grpcAt = fmt.Sprintf("127.0.0.1:%d", port), fmt.Sprintf("127.0.0.1:%d", port+2)
	n.base = "https://" + n.at
	cert, key := n.ca.issue(nil, "node", 1, time.Now().Add(time.Hour), x509.ExtKeyUsageServerAuth)
	n.certFile, n.keyFile = write(t, filepath.Join(n.c.dir, "node.pem"), cert), write(t, filepath.Join(n.c.dir, "node.key"), key)
	n.caFile = write(t, filepath.Join(n.c.dir, "ca.pem"), n.ca.pem)
	data := filepath.Join(n.c.dir, "data")
	n.c.json(&n.made, "init", "--data", data, "--http", n.at, "--mesh", fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", port+1))
	node := exec.CommandContext(t.Context(), testBinary, "serve", "--config", filepath.Join(data, "config.yaml"),
		"--tls-cert", n.certFile, "--tls-key", n.keyFile, "--grpc-listen", n.grpcAt,
		"--tls-clients", clients, "--tls-client-ca", n.caFile, "--tls-client-roles", roles)
	node.Env = n.c.env()
	node.Stderr = n.log
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = node.Process.Signal(syscall.SIGTERM)
		_ = node.Wait()
	})
	return n
}

// Issue 5: where the operator wants a certificate of every client, stock clients work
// with one and nothing else, on every binding, and nobody else gets as far as a word.
func TestMutualTLS(t *testing.T) {
	n := startTLS(t, clientsRequire, "ops.example=runner,dev.example=viewer")
	hour := time.Now().Add(time.Hour)
	as := func(cert tls.Certificate) *tls.Config {
		return &tls.Config{RootCAs: n.ca.pool(), Certificates: certificates(cert)}
	}
	runner, viewer := n.ca.client(nil, "ops.example", hour), n.ca.client(nil, "dev.example", hour)
	over := func(cert tls.Certificate) *http.Client {
		hc := &http.Client{Transport: &http.Transport{TLSClientConfig: as(cert)}}
		t.Cleanup(hc.CloseIdleConnections)
		return hc
	}
	n.c.await("the node", func() bool {
		res, err := over(runner).Get(n.base + "/readyz")
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK
	})

	card, err := agentcard.NewResolver(over(runner)).Resolve(t.Context(), n.base)
	if err != nil {
		t.Fatal(err)
	}
	program := func() *sdk.SendMessageRequest {
		return &sdk.SendMessageRequest{Message: sdk.NewMessage(sdk.MessageRoleUser, sdk.NewTextPart("```starlark\nresult = 6 * 7\n```"))}
	}
	for _, at := range card.SupportedInterfaces {
		t.Run(string(at.ProtocolBinding), func(t *testing.T) {
			dial := func(cert tls.Certificate) *a2aclient.Client {
				t.Helper()
				option := map[sdk.TransportProtocol]a2aclient.FactoryOption{
					sdk.TransportProtocolJSONRPC:  a2aclient.WithJSONRPCTransport(over(cert)),
					sdk.TransportProtocolHTTPJSON: a2aclient.WithRESTTransport(over(cert)),
					sdk.TransportProtocolGRPC:     a2agrpc.WithGRPCTransport(grpc.WithTransportCredentials(grpccreds.NewTLS(as(cert)))),
				}[at.ProtocolBinding]
				cl, err := a2aclient.NewFromEndpoints(t.Context(), []*sdk.AgentInterface{at}, option)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = cl.Destroy() }) // the connection only
				return cl
			}
			sent, err := dial(runner).SendMessage(t.Context(), program())
			task, _ := sent.(*sdk.Task)
			if err != nil || task == nil || task.Status.State != sdk.TaskStateCompleted {
				t.Fatalf("with a certificate: %+v, %v", sent, err)
			}
			if rep, err := a2a.ReportOf(task); err != nil || string(rep.Result) != "42" || rep.Outcome == nil {
				t.Errorf("report %+v, %v", rep, err)
			}
			if _, err := dial(viewer).GetTask(t.Context(), &sdk.GetTaskRequest{ID: task.ID}); a2a.FromWire(err).Code != a2a.CodeNotFound {
				t.Errorf("another's task: %v", err)
			}
			if got, err := dial(viewer).SendMessage(t.Context(), program()); err != nil || got.(*sdk.Task).Status.State != sdk.TaskStateRejected {
				t.Errorf("who may only look: %+v, %v", got, err)
			}
			for name, cert := range map[string]tls.Certificate{
				"no certificate": {}, "an expired one": n.ca.client(nil, "ops.example", time.Now().Add(-time.Minute)),
				"one of another authority": newAuthority(t).client(nil, "ops.example", hour), "a name without a role": n.ca.client(nil, "x.example", hour),
			} {
				ctx, cancel := context.WithTimeout(t.Context(), conditionMet)
				got, err := dial(cert).SendMessage(ctx, program())
				if err == nil {
					t.Errorf("%s: %+v", name, got)
				}
				if name == "no certificate" && a2a.FromWire(err).Code == a2a.CodeUnauthenticated {
					t.Errorf("%s: the door had a word for it: %v", name, err)
				}
				cancel()
			}
		})
	}
}

// Issue 5: the doors speak TLS, follow their files, and know clients by their
// certificates.
func TestDoorsWithTLS(t *testing.T) {
	n := startTLS(t, clientsRequest, "ops.example=viewer")
	c, ca, base, made, log := n.c, n.ca, n.base, n.made, n.log
	other, hour := newAuthority(t), time.Now().Add(time.Hour)
	certFile, keyFile, caFile := n.certFile, n.keyFile, n.caFile
	cli := func(args ...string) result {
		return c.run(append(args, "--server", base, "--ca-file", caFile, "--api-key-file", made["api_key_file"])...)
	}
	c.await("the node", func() bool { return cli("status").code == exitOK })

	// The command line.
	if r := cli("exec", "--lang", "starlark", "-c", "result = 6 * 7"); r.code != exitOK || !strings.Contains(r.stdout, "42") {
		t.Errorf("exec: %d %s%s", r.code, r.stdout, r.stderr)
	}
	if r := cli("doctor"); !strings.Contains(r.stdout, "TLS 1.3, certificate of localhost node, until") {
		t.Errorf("doctor: %s%s", r.stdout, r.stderr)
	}
	if r := c.run("status", "--server", base, "--api-key-file", made["api_key_file"]); r.code != exitFailed || !strings.Contains(r.stderr, "--ca-file") {
		t.Errorf("an unknown authority: %d %s", r.code, r.stderr)
	}
	if r := c.run("status", "--server", "http://192.0.2.1:1", "--api-key-file", made["api_key_file"]); r.code != exitUsage || !strings.Contains(r.stderr, "https://") {
		t.Errorf("in the clear to another machine: %d %s", r.code, r.stderr)
	}

	// The wire.
	at := n.at
	if _, err := tls.Dial("tcp", at, &tls.Config{RootCAs: ca.pool(), MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}); err == nil {
		t.Error("TLS 1.1 is spoken")
	}
	for version, protos := range map[string][]string{"HTTP/2.0": {"h2", "http/1.1"}, "HTTP/1.1": {"http/1.1"}} {
		hc := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: version == "HTTP/2.0", TLSClientConfig: &tls.Config{RootCAs: ca.pool(), NextProtos: protos}}}
		res, err := hc.Get(base + "/.well-known/agent-card.json")
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.Proto != version || !strings.Contains(string(text), base+a2aPath) {
			t.Errorf("%s: %s, card %s", version, res.Proto, text)
		}
		hc.CloseIdleConnections()
	}
	if res, err := http.Get("http://" + at + "/healthz"); err == nil {
		res.Body.Close()
		if res.StatusCode != http.StatusBadRequest {
			t.Errorf("in the clear: %s", res.Status)
		}
	}
	apiKey, err := os.ReadFile(made["api_key_file"])
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{at, n.grpcAt} {
		if code := grpcCode(t, addr, ca.pool(), nil, "Bearer "+strings.TrimSpace(string(apiKey))); code != codes.NotFound {
			t.Errorf("gRPC at %s: %s", addr, code)
		}
	}

	// Clients by certificate.
	agent, err := identity.Load(made["agent_key"])
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		cert tls.Certificate
		want string // of the answer to whoami
		code codes.Code
	}{
		"an agent's own key, whoever signed it": {other.client(agent.Private(), "anything", hour), agent.ID().DID(), codes.NotFound},
		"a name of a known authority":           {ca.client(nil, "ops.example", hour), certificateUser("ops.example"), codes.NotFound},
		"another name of it":                    {ca.client(nil, "dev.example", hour), "unauthenticated", codes.Unauthenticated},
		"a name of another authority":           {other.client(nil, "ops.example", hour), "unauthenticated", codes.Unauthenticated},
		"an expired certificate":                {ca.client(nil, "ops.example", time.Now().Add(-time.Minute)), "unauthenticated", codes.Unauthenticated},
		"a key that is no agent's":              {other.client(stranger.Private(), "x", hour), "unauthenticated", codes.Unauthenticated},
		"no certificate":                        {tls.Certificate{}, "unauthenticated", codes.Unauthenticated},
	} {
		hc := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.pool(), Certificates: certificates(tc.cert)}}}
		res, err := hc.Get(base + "/v1/whoami")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		text, _ := io.ReadAll(res.Body)
		res.Body.Close()
		hc.CloseIdleConnections()
		if !strings.Contains(string(text), tc.want) {
			t.Errorf("%s: %s", name, text)
		}
		for _, addr := range []string{at, n.grpcAt} {
			if code := grpcCode(t, addr, ca.pool(), certificates(tc.cert), ""); code != tc.code {
				t.Errorf("%s, gRPC at %s: %s", name, addr, code)
			}
		}
	}

	// The files.
	cert, key := ca.issue(nil, "node", 2, hour, x509.ExtKeyUsageServerAuth)
	write(t, certFile, cert)
	write(t, keyFile, key)
	c.await("the new certificate", func() bool { return serialOf(t, at, ca.pool()) == 2 })
	write(t, certFile, []byte("garbage"))
	c.await("the complaint", func() bool { serialOf(t, at, ca.pool()); return strings.Contains(log.String(), "are not used") })
	if got := serialOf(t, at, ca.pool()); got != 2 {
		t.Errorf("with garbage in the file certificate %d is shown", got)
	}
	if strings.Contains(log.String(), "PRIVATE KEY") {
		t.Error("the log shows a key")
	}
}

func certificates(c tls.Certificate) []tls.Certificate {
	if c.Certificate == nil {
		return nil
	}
	return []tls.Certificate{c}
}

func serialOf(t testing.TB, addr string, roots *x509.CertPool) int64 {
	t.Helper()
	conn, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: roots})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
}

// grpcCode is the answer to a request for a task that nobody has.
func grpcCode(t testing.TB, addr string, roots *x509.CertPool, certs []tls.Certificate, authorization string) codes.Code {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(grpccreds.NewTLS(&tls.Config{RootCAs: roots, Certificates: certs})))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), conditionMet)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "a2a-version", "1.0")
	if authorization != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", authorization)
	}
	_, err = a2apb.NewA2AServiceClient(conn).GetTask(ctx, &a2apb.GetTaskRequest{Id: strings.Repeat("0", 32)})
	return status.Code(err)
}

// Anything wider than loopback needs TLS, and what does not go together is
// refused at the start.
func TestTLSConfiguration(t *testing.T) {
	dir, ca := t.TempDir(), newAuthority(t)
	cert, key := ca.issue(nil, "node", 1, time.Now().Add(time.Hour), x509.ExtKeyUsageServerAuth)
	_, otherKey := ca.issue(nil, "node", 1, time.Now().Add(time.Hour), x509.ExtKeyUsageServerAuth)
	old, oldKey := ca.issue(nil, "node", 1, time.Now().Add(-time.Minute), x509.ExtKeyUsageServerAuth)
	file := func(name string, text []byte) string { return write(t, filepath.Join(dir, name), text) }
	certFile, keyFile := file("cert", cert), file("key", key)
	log := slog.New(slog.DiscardHandler)
	good, err := openTLS(tlsSettings{Cert: certFile, Key: keyFile, Clients: clientsOff}, log)
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0", "example.com:0", "127.0.0.1.example.com:0"} {
		if l, err := listen(t.Context(), "http", addr, nil); err == nil {
			l.Close()
			t.Errorf("without TLS the door listens on %s", addr)
		} else if !strings.Contains(err.Error(), "tls_cert") {
			t.Errorf("%s: %v", addr, err)
		}
	}
	for _, addr := range []string{"127.0.0.1:0", "localhost:0", "[::1]:0"} {
		if l, err := listen(t.Context(), "http", addr, nil); err == nil {
			l.Close()
		} else if strings.Contains(err.Error(), "tls_cert") {
			t.Errorf("%s: %v", addr, err)
		}
	}
	if l, err := listen(t.Context(), "http", "0.0.0.0:0", good); err != nil {
		t.Error(err)
	} else {
		l.Close()
	}
	for name, s := range map[string]tlsSettings{
		"no such file":  {Cert: filepath.Join(dir, "none"), Key: keyFile},
		"another's key": {Cert: certFile, Key: file("other", otherKey)},
		"garbage":       {Cert: certFile, Key: file("garbage", []byte("x"))},
		"expired":       {Cert: file("old", old), Key: file("oldkey", oldKey)},
		"a folder":      {Cert: dir, Key: keyFile},
		"no authority":  {Cert: certFile, Key: keyFile, ClientCA: keyFile},
	} {
		if _, err := openTLS(s, log); err == nil {
			t.Errorf("%s: accepted", name)
		} else if strings.Contains(err.Error(), "PRIVATE") {
			t.Errorf("%s: %v", name, err)
		}
	}
	env := func(string) string { return "" }
	for want, flags := range map[string]map[string]string{
		"one without the other":    {"tls_cert": certFile},
		"tls_clients: needs":       {"tls_clients": "require"},
		"tls_client_ca: needs":     {"tls_cert": certFile, "tls_key": keyFile, "tls_client_ca": certFile},
		"tls_client_roles: needs":  {"tls_cert": certFile, "tls_key": keyFile, "tls_clients": "request", "tls_client_roles": "a=viewer"},
		"is none of off":           {"tls_clients": "maybe"},
		"is not NAME=ROLE":         {"tls_client_roles": "a"},
		"is not a URL such as":     {"public_url": "ftp://x"},
		"is not a URL such as htt": {"public_url": "https://a:b@x"},
	} {
		flags["data"] = dir
		if _, err := loadConfig("", flags, env); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", flags, err, want)
		}
	}
	for addr, want := range map[string]string{"0.0.0.0:8420": "https://localhost:8420", "[::]:8420": "https://localhost:8420", "127.0.0.1:8420": "https://127.0.0.1:8420"} {
		if base, grpcAddr := reachedAt(&config{HTTP: addr}, good); base != want || "https://"+grpcAddr != want {
			t.Errorf("%s is reached at %s and %s", addr, base, grpcAddr)
		}
	}
	base, grpcAddr := reachedAt(&config{HTTP: "0.0.0.0:8420", GRPC: "0.0.0.0:9000", PublicURL: "https://node1.example.com/a/"}, good)
	if got, _ := json.Marshal([]string{base, grpcAddr}); string(got) != `["https://node1.example.com/a","node1.example.com:9000"]` {
		t.Errorf("with a public URL: %s", got)
	}
}
