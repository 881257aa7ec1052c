package push_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a/push"
)

func TestGuardRefusesURLs(t *testing.T) {
	var none push.Guard
	some, err := push.ParseGuard([]string{"10.1.0.0/16", "fd12::/16"})
	if err != nil {
		t.Fatal(err)
	}
	for _, url := range []string{
		"", "example.com", "//example.com/x", "ftp://example.com", "http://example.com", "https://", "https:///x", "https://:443/x", "mailto:a@example.com", "https:example.com",
		"https://user:pass@example.com", "https://example.com/#x", "https://example.com/" + strings.Repeat("x", 3000), "https://exa mple.com", "https://example.com:port", "https://example.com:0", "https://example.com:65536", "https://example.com:99999999999999999999",
		"https://127.0.0.1/", "https://127.9.9.9:8080/", "https://[::1]/", "https://[::ffff:127.0.0.1]/", "https://[::ffff:7f00:1]/", "https://[::127.0.0.1]/",
		"https://0.0.0.0/", "https://[::]/", "https://10.0.0.1/", "https://172.16.0.1/", "https://172.31.255.255/", "https://192.168.1.1/",
		"https://169.254.169.254/latest/meta-data", "https://[fe80::1]/", "https://[fe80::1%25eth0]/", "https://[fd00:ec2::254]/", "https://100.100.100.200/",
		"https://100.64.0.1/", "https://100.127.255.255/", "https://168.63.129.16/", "https://192.0.0.192/", "https://198.18.0.1/", "https://224.0.0.1/",
		"https://255.255.255.255/", "https://240.0.0.1/", "https://[ff02::1]/", "https://[fec0::1]/", "https://[2001:db8::1]/", "https://[2001::1]/",
		"https://2130706433/", "https://0x7f000001/", "https://0X7F.1/", "https://0x/", "https://017700000001/", "https://127.1/", "https://127.0.0.1./", "https://0/", "https://example.1/", "https://256.256.256.256/",
		"https://①②⑦.⓪.⓪.①/", "https://127。0。0。1/", "https://１２７.1/", "https://\u00ad/", "https://./",
		"https://[64:ff9b::7f00:1]/", "https://[64:ff9b::a9fe:a9fe]/", "https://[64:ff9b:1::1]/", "https://[2002:7f00:1::]/", "https://[2002:a00:1::1]/",
	} {
		if err := none.CheckURL(url); err == nil {
			t.Errorf("CheckURL(%q) is allowed", url)
		} else if strings.Contains(err.Error(), "pass") {
			t.Errorf("CheckURL(%q) = %v", url, err)
		}
	}
	for _, url := range []string{
		"https://example.com", "https://example.com:8443/hook?x=1", "https://9.9.9.9/", "https://[2620:fe::fe]/", "HTTPS://EXAMPLE.COM", "https://100.63.255.255/", "https://100.128.0.1/",
		"https://172.32.0.1/", "https://münchen.example/", "https://xn--mnchen-3ya.example./", "https://1.example/", "https://0x1g/", "https://a_b.example/", "https://[64:ff9b::909:909]/", "https://localhost/", // a name is judged by where it leads, when it is called
	} {
		if err := none.CheckURL(url); err != nil {
			t.Errorf("CheckURL(%q) = %v", url, err)
		}
	}
	for url, want := range map[string]bool{
		"http://10.1.2.3/": true, "https://10.1.2.3/": true, "http://[::ffff:10.1.2.3]/": true, "http://hooks.internal/": true, "http://[fd12::1]/": true,
		"http://10.2.0.1/": false, "https://127.0.0.1/": false, "http://9.9.9.9/": false,
	} {
		if err := some.CheckURL(url); (err == nil) != want {
			t.Errorf("CheckURL(%q) with an allow-list = %v", url, err)
		}
	}
	for _, text := range []string{"x", "10.0.0.0/33", "10.0.0.1:80", "example.com", ""} {
		if g, err := push.ParseGuard([]string{text}); err == nil {
			t.Errorf("ParseGuard(%q) = %v", text, g)
		}
	}
}

// Neither a name, a redirect nor a proxy of the environment leads past the guard.
func TestNoWayLeadsPastTheGuard(t *testing.T) {
	var touched atomic.Int32
	forbidden := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { touched.Add(1) }))
	defer forbidden.Close()
	plain := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { touched.Add(1) }))
	defer plain.Close()
	t.Setenv("HTTPS_PROXY", plain.URL)
	t.Setenv("HTTP_PROXY", plain.URL)
	port := forbidden.URL[strings.LastIndex(forbidden.URL, ":"):]

	allowed, err := push.ParseGuard([]string{"127.0.0.3"})
	if err != nil {
		t.Fatal(err)
	}
	store := openStore(t, t.TempDir())
	newTask(t, store, "t1",
		&sdk.PushConfig{URL: "https://localhost" + port + "/"}, &sdk.PushConfig{URL: forbidden.URL}, &sdk.PushConfig{URL: plain.URL},
		&sdk.PushConfig{URL: "http://localhost" + plain.URL[strings.LastIndex(plain.URL, ":"):]})
	tell(t, store, "t1", time.Now().Add(-time.Hour), "x") // given up after one attempt
	run(t, push.Config{Store: store, Key: newKey(t), Guard: allowed, MaxAge: time.Minute})
	for end := time.Now().Add(deadline); ; time.Sleep(time.Millisecond) {
		left, err := store.Queues()
		if err != nil || time.Now().After(end) {
			t.Fatalf("queues: %v, %v", left, err)
		}
		if len(left) == 0 {
			break
		}
	}
	if n := touched.Load(); n != 0 {
		t.Errorf("%d calls came through", n)
	}

	redirect := newReceiver(t, func(w http.ResponseWriter, n int) {
		if n == 1 {
			w.Header().Set("Location", plain.URL)
			w.WriteHeader(http.StatusTemporaryRedirect)
		}
	})
	newTask(t, store, "t2", &sdk.PushConfig{URL: redirect.URL, Token: "tok"})
	tell(t, store, "t2", time.Now(), "y")
	run(t, push.Config{Store: store, Key: newKey(t), Guard: loopback(t)})
	redirect.next(t)
	redirect.next(t) // it was no delivery
	if n := touched.Load(); n != 0 {
		t.Errorf("%d redirects were followed", n)
	}
}
