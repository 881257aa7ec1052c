//go:build linux && long

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// page is the console in a real browser, with what went wrong in it.
type page struct {
	t   *testing.T
	ctx context.Context

	mu     sync.Mutex
	faults []string
}

// openConsole opens the console of a node in a browser that ends with the test.
func openConsole(t *testing.T, at string) *page {
	t.Helper()
	browser, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("chromium is not installed")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(browser), chromedp.UserDataDir(t.TempDir()))
	if os.Getuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	p := &page{t: t, ctx: ctx}
	err = chromedp.Listen(ctx, func(event any) {
		switch e := event.(type) {
		case *runtime.EventExceptionThrown:
			p.fault("exception: %s", e.ExceptionDetails.Text)
		case *runtime.EventConsoleAPICalled:
			p.fault("console: %s", e.Type)
		case *log.EventEntryAdded:
			p.fault("%s: %s", e.Entry.Source, e.Entry.Text) // violations of the security policy among them
		case *network.EventRequestWillBeSent:
			if !strings.HasPrefix(e.Request.URL, at+"/") {
				p.fault("asked for %s", e.Request.URL)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	p.do("open", chromedp.Navigate(at+"/ui/"), chromedp.WaitVisible("#enter"))
	return p
}

func (p *page) fault(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = append(p.faults, fmt.Sprintf(format, args...))
}

// forget returns what went wrong until now.
func (p *page) forget() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	faults := p.faults
	p.faults = nil
	return faults
}

func (p *page) do(what string, steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	if err := chromedp.Do(p.ctx, steps...); err != nil {
		p.t.Fatalf("%s: %v; what went wrong on the page: %q", what, err, p.forget())
	}
}

// view opens one of the views.
func (p *page) view(name string) {
	p.t.Helper()
	p.do("view "+name, chromedp.Click(`#nav [data-view="`+name+`"]`), chromedp.WaitVisible("#"+name))
}

// says waits until the text of an element has want in it.
func (p *page) says(selector, want string) {
	p.t.Helper()
	p.until(fmt.Sprintf(`document.querySelector(%q)?.textContent.includes(%q) ?? false`, selector, want))
}

// until waits until an expression holds on the page.
func (p *page) until(holds string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, conditionMet)
	defer cancel()
	if _, err := chromedp.Run(ctx, chromedp.Poll[bool](holds, chromedp.WithPollingTimeout(0))); err != nil {
		text, _ := chromedp.Run(p.ctx, chromedp.Evaluate[string]("document.body.innerText"))
		p.t.Fatalf("waited in vain for %s: %v; what went wrong on the page: %q; the page:\n%s", holds, err, p.forget(), text)
	}
}

// The console does in a browser what its words say, takes what programs print
// for text, and reaches nothing but its node.
func TestConsole(t *testing.T) {
	c := startCluster(t, 1)
	p := openConsole(t, c.Nodes[0].HTTP)

	p.do("a wrong key", chromedp.SendKeys("#key", "ac_wrong_key\n"))
	p.says("#problem", "credential")
	if faults := p.forget(); len(faults) != 1 || !strings.Contains(faults[0], "401") {
		t.Errorf("a refused key: the page complains of %q, want the 401 alone", faults)
	}
	p.do("a key", chromedp.SendKeys("#key", c.APIKey+"\n"), chromedp.WaitVisible("#nav"))
	p.says("#who", "service:")
	p.says("#facts", string(c.Nodes[0].ID))
	p.says("#facts", "1 of 1 keepers")
	p.says("#nodes", "this node")

	const hostile = `<img src=x onerror="document.title='taken'"><script>document.title='taken'</script>`
	p.view("run")
	p.do("run", chromedp.SetValue("#code", "print('''"+hostile+"''')\nresult = ['''"+hostile+"''', 6 * 7]"), chromedp.Click("#program button"))
	p.says("#report", "succeeded, exit code 0")
	p.says("#report", hostile)
	p.says("#report", "42")
	p.do("its task", chromedp.Click("#report button"), chromedp.WaitVisible("#task h3"))
	p.says("#task", hostile)
	p.says("#task", "intent")
	p.until(`document.querySelector("main img, main script") === null`)

	p.view("log")
	p.says("#entries", "outcome")
	p.do("an entry", chromedp.Click("#entries tbody tr:first-child td:first-child button"), chromedp.WaitVisible("#entry h3"))
	p.says("#entry", "c2sp.org/tlog-proof@v1")
	p.do("follow", chromedp.Click("#follow"), chromedp.WaitVisible(`#follow[aria-pressed="true"]`))
	rep, _ := c.exec(0, "--lang", "starlark", "-c", "result = 1")
	p.says("#entries tbody", rep.Task)
	p.do("stop following", chromedp.Click("#follow"), chromedp.WaitVisible(`#follow[aria-pressed="false"]`))
	p.do("filter", chromedp.SetValue("#kind", "intent"), chromedp.SetValue("#of", rep.Task), chromedp.Click(`#filter button[type="submit"]`))
	p.until(`document.querySelectorAll("#entries tbody tr").length === 1`)

	p.view("threats")
	p.says("#alerts", "no alert")
	p.view("policy")
	p.says("#modules", "import rego.v1")

	p.do("forget the key", chromedp.Click("#leave"), chromedp.WaitVisible("#enter"), chromedp.WaitNotVisible("#nav"))
	p.until(`document.title === "AgentiCraft node"`) // else what a program printed ran
	if faults := p.forget(); len(faults) > 0 {
		t.Errorf("the page complains of %q", faults)
	}
}
