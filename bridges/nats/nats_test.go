package nats_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/nats-io/nkeys"

	"github.com/agenticraft/node/a2a/natsrpc/natstest"
	"github.com/agenticraft/node/bridges/nats"
	"github.com/agenticraft/node/identity"
)

const wait = time.Minute

// open runs a door until the test ends.
func open(t *testing.T, access nats.Access, h http.HandlerFunc) *nats.Door {
	t.Helper()
	key, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	d, err := nats.New(nats.Config{Access: access, Node: key.ID(), Cluster: "c", Version: "v1.2.3", Schema: "{}", Handler: h, JSONRPC: "/rpc", Drain: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return d
}

func connected(t *testing.T, d *nats.Door) {
	t.Helper()
	for deadline := time.Now().Add(wait); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if d.Status().Connected {
			return
		}
	}
	t.Fatalf("the door is not connected: %+v", d.Status())
}

// ask asks until somebody listens.
func ask(t *testing.T, conn *natsgo.Conn, subject, payload string) *natsgo.Msg {
	t.Helper()
	for deadline := time.Now().Add(wait); ; time.Sleep(5 * time.Millisecond) {
		m, err := conn.Request(subject, []byte(payload), wait)
		if err == nil {
			return m
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func echo(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s %s %s", r.Method, r.URL.Path, body)
}

func TestActs(t *testing.T) {
	s := natstest.Start(t, nil)
	open(t, nats.Access{URL: s.URL}, echo)
	conn := s.Connect()
	const task = "0123456789abcdef0123456789abcdef"
	for subject, want := range map[string]string{
		"a2a":     `POST /rpc {"task":"` + task + `"}`,
		"run":     `POST /v1/runs {"task":"` + task + `"}`,
		"status":  `GET /v1/tasks/` + task + ` `,
		"result":  `GET /v1/tasks/` + task + ` `,
		"cancel":  `POST /v1/tasks/` + task + `/cancel `,
		"receipt": `GET /v1/tasks/` + task + `/receipt `,
	} {
		if m := ask(t, conn, "agenticraft."+subject, `{"task":"`+task+`"}`); string(m.Data) != want {
			t.Errorf("%s: %q, want %q", subject, m.Data, want)
		}
	}
	if m := ask(t, conn, "agenticraft.card", ""); string(m.Data) != "GET /.well-known/agent-card.json " {
		t.Errorf("card: %s", m.Data)
	}
	for _, bad := range []string{"", "null", "[]", `"` + task + `"`, `{"task":""}`, `{"task":"../x"}`, `{"task":"` + task + `"} {}`, `{"task":"` + task + `","x":1}`, strings.Repeat(" ", 2000)} {
		if m := ask(t, conn, "agenticraft.result", bad); m.Header.Get(micro.ErrorCodeHeader) != "400" {
			t.Errorf("%q: %s %v", bad, m.Data, m.Header)
		}
	}
	info := ask(t, conn, "$SRV.INFO.agenticraft", "")
	for _, want := range []string{`"version":"1.2.3"`, `"schema":"{}"`, `"binding":"https://agenticraft.dev/a2a/binding/nats/v1"`} {
		if !strings.Contains(string(info.Data), want) {
			t.Errorf("info lacks %s: %s", want, info.Data)
		}
	}
	// A request that names a subject of NATS itself or of the cluster as the
	// place for its answer gets none.
	for _, reply := range []string{"agenticraft.run", "$SYS.REQ.SERVER.PING", "$JS.API.STREAM.CREATE.X"} {
		sub, err := conn.SubscribeSync(reply)
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.PublishRequest("agenticraft.run", reply, []byte("x")); err != nil {
			t.Fatal(err)
		}
		ask(t, conn, "agenticraft.run", "y") // behind it
		if reply != "agenticraft.run" {      // where we listen, too, and saw the requests
			if n, _, err := sub.Pending(); err != nil || n > 0 {
				t.Errorf("the door answered to %s", reply)
			}
		}
		if err := sub.Unsubscribe(); err != nil {
			t.Fatal(err)
		}
	}
}

// More requests than the door takes at once are told so, not kept waiting.
func TestABusyDoor(t *testing.T) {
	s := natstest.Start(t, nil)
	enough := make(chan struct{})
	open(t, nats.Access{URL: s.URL}, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-enough:
		case <-r.Context().Done():
		}
		echo(w, r)
	})
	conn := s.Connect()
	ask(t, conn, "$SRV.PING.agenticraft", "")
	inbox := conn.NewInbox()
	answers, err := conn.SubscribeSync(inbox)
	if err != nil {
		t.Fatal(err)
	}
	const many = 600
	for range many {
		if err := conn.PublishRequest("agenticraft.run", inbox, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	var busy int
	next := func() *natsgo.Msg {
		t.Helper()
		m, err := answers.NextMsg(wait)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	for range many - 512 {
		if m := next(); m.Header.Get(micro.ErrorCodeHeader) == "429" {
			busy++
		}
	}
	close(enough)
	for range 512 {
		if m := next(); m.Header.Get(micro.ErrorCodeHeader) != "" {
			t.Errorf("a request that was taken: %s", m.Data)
		}
	}
	if busy != many-512 {
		t.Errorf("%d of %d were told that the door is busy", busy, many-512)
	}
}

// A door that stops lets its replies end, or cuts them; it hangs on none.
func TestStopping(t *testing.T) {
	s := natstest.Start(t, nil)
	key, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	began := make(chan struct{})
	var once sync.Once
	d, err := nats.New(nats.Config{Access: nats.Access{URL: s.URL}, Node: key.ID(), Cluster: "c", JSONRPC: "/", Drain: 50 * time.Millisecond, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		once.Do(func() { close(began) })
		<-r.Context().Done()
	})})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	conn := s.Connect()
	ask(t, conn, "$SRV.PING.agenticraft", "")
	answer := make(chan *natsgo.Msg, 1)
	go func() {
		m, err := conn.Request("agenticraft.run", nil, wait)
		if err != nil {
			t.Error(err)
		}
		answer <- m
	}()
	<-began
	cancel()
	if m := <-answer; m == nil || m.Header.Get("A2A-Frame") != "cut" {
		t.Errorf("the reply ended with %+v", m)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Every way to prove the node to a NATS server works with a real one, and the
// node comes back when a server that refused it changes its mind.
func TestCredentials(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, text []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	user, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := user.Seed()
	if err != nil {
		t.Fatal(err)
	}
	public, err := user.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	t.Run("nkey", func(t *testing.T) {
		s := natstest.Start(t, func(o *server.Options) { o.Nkeys = []*server.NkeyUser{{Nkey: public}} })
		connected(t, open(t, nats.Access{URL: s.URL, NKey: write("seed", seed)}, echo))
	})
	t.Run("creds", func(t *testing.T) {
		operator, account := newPair(t, nkeys.CreateOperator), newPair(t, nkeys.CreateAccount)
		claims := jwt.NewAccountClaims(account.public)
		accountJWT, err := claims.Encode(operator.pair)
		if err != nil {
			t.Fatal(err)
		}
		userClaims := jwt.NewUserClaims(public)
		userJWT, err := userClaims.Encode(account.pair)
		if err != nil {
			t.Fatal(err)
		}
		creds, err := jwt.FormatUserConfig(userJWT, seed)
		if err != nil {
			t.Fatal(err)
		}
		s := natstest.Start(t, func(o *server.Options) {
			o.TrustedKeys = []string{operator.public}
			resolver := &server.MemAccResolver{}
			if err := resolver.Store(account.public, accountJWT); err != nil {
				t.Fatal(err)
			}
			o.AccountResolver = resolver
		})
		connected(t, open(t, nats.Access{URL: s.URL, Creds: write("user.creds", creds)}, echo))
	})
	t.Run("TLS", func(t *testing.T) {
		certificate, pair := newCertificate(t)
		s := natstest.Start(t, func(o *server.Options) {
			o.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13}
			o.TLS = true
		})
		file := write("ca.pem", certificate)
		der, err := x509.MarshalECPrivateKey(pair.PrivateKey.(*ecdsa.PrivateKey))
		if err != nil {
			t.Fatal(err)
		}
		key := write("key.pem", pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
		url := strings.Replace(s.URL, "nats://", "tls://", 1)
		connected(t, open(t, nats.Access{URL: url, CA: file, Cert: file, Key: key}, echo))
		stranger := open(t, nats.Access{URL: url, Cert: file, Key: key}, echo) // whose CA nobody named
		for deadline := time.Now().Add(wait); stranger.Status().Fault == "" && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		}
		if st := stranger.Status(); st.Connected || !strings.Contains(st.Fault, "certificate") {
			t.Errorf("a server that nobody vouches for: %+v", st)
		}
	})
	t.Run("refused, then let in", func(t *testing.T) {
		s := natstest.Start(t, func(o *server.Options) { o.Username, o.Password = "u", "right" })
		file := write("password", []byte("right\n"))
		wrong := open(t, nats.Access{URL: s.URL, User: "u", PasswordFile: write("wrong", []byte("hunter2"))}, echo)
		connected(t, open(t, nats.Access{URL: s.URL, User: "u", PasswordFile: file}, echo))
		for deadline := time.Now().Add(wait); wrong.Status().Fault == "" && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		}
		if st := wrong.Status(); st.Connected || st.Fault == "" || strings.Contains(st.Fault, "hunter2") {
			t.Errorf("a wrong password: %+v", st)
		}
	})
}

type keyPair struct {
	pair   nkeys.KeyPair
	public string
}

func newPair(t *testing.T, create func() (nkeys.KeyPair, error)) keyPair {
	t.Helper()
	pair, err := create()
	if err != nil {
		t.Fatal(err)
	}
	public, err := pair.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return keyPair{pair, public}
}

func newCertificate(t *testing.T) ([]byte, tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
