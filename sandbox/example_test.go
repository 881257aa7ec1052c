package sandbox_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/agenticraft/node/sandbox"
)

// shout is the smallest of backends. Real ones are in the folders beside this
// package: process, restricted, wasm and docker.
type shout struct{}

func (shout) Describe() sandbox.Description {
	return sandbox.Description{Available: true, Languages: []string{"shout"}, Tier: "none", Enforces: map[string]string{sandbox.LimitWall: "monitor"}}
}

func (shout) Run(ctx context.Context, spec sandbox.Spec, ready func(context.Context) error) (sandbox.Result, error) {
	if ready != nil {
		if err := ready(ctx); err != nil {
			return sandbox.Result{}, err
		}
	}
	return sandbox.Result{
		Status: sandbox.OK, Stdout: append(spec.Code, '!'), Enforced: map[string]string{sandbox.LimitWall: "monitor"},
	}, nil
}

func (shout) Close() error { return nil }

// A manager holds backends by name, says what there is, chooses one, runs a
// program within limits, and closes all of them. Those who know the original
// AgentiCraft find its SecurityContext in Limits and Required of [sandbox.Spec],
// its SecureResult in [sandbox.Result], its get_sandbox in [sandbox.Manager.Resolve],
// its available types in [sandbox.Manager.Describe], its cleanup in
// [sandbox.Manager.Close].
func ExampleManager() {
	m, err := sandbox.NewManager(sandbox.ManagerConfig{Backends: map[string]sandbox.Backend{"shout": shout{}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, d := range m.Describe() {
		fmt.Println(d.Name, d.Available, d.Languages)
	}
	spec := sandbox.Spec{
		Owner: "alice", Language: "shout", Code: []byte("hello"),
		Limits: sandbox.Limits{Wall: time.Second}, Required: []string{sandbox.LimitWall},
	}
	r, err := m.Run(context.Background(), sandbox.Auto, spec, nil)
	fmt.Println(r.Status, string(r.Stdout), r.Enforced[sandbox.LimitWall], err)

	// A limit that is required and not enforced never passes for a good run.
	spec.Required = []string{sandbox.LimitMemory}
	r, err = m.Run(context.Background(), sandbox.Auto, spec, nil)
	fmt.Println(r.Status, r.Message, err)

	spec.Language = "whisper"
	_, err = m.Run(context.Background(), sandbox.Auto, spec, nil)
	fmt.Println(errors.Is(err, sandbox.ErrSpec), err)
	fmt.Println(m.Close())
	// Output:
	// shout true [shout]
	// ok hello! monitor <nil>
	// internal the required limit memory was not enforced <nil>
	// true bad run: unknown language "whisper"; this node knows shout
	// <nil>
}
