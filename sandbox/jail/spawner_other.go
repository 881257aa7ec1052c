//go:build !linux

package jail

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/agenticraft/node/sandbox"
)

// Config of a [Spawner].
type Config struct {
	Node   string // short id of the node
	Dir    string // state folder of the jails
	Slots  int    // jails at the same time
	Log    *slog.Logger
	Helper []byte // the helper's executable; default: the embedded one
}

// Spawner makes jails on Linux; here there is none.
type Spawner struct{}

// life is one spawner process on Linux.
type life struct{}

func (*life) kill(*Jail) {}

// Start returns an error wrapping [sandbox.ErrUnavailable]: jails need Linux.
func Start(Config) (*Spawner, error) {
	return nil, fmt.Errorf("%w: jails need Linux", sandbox.ErrUnavailable)
}

// Probe says that there are no jails.
func (*Spawner) Probe() Probe { return Probe{Tier: Tier4, Reason: "jails need Linux"} }

// Start returns an error wrapping [sandbox.ErrUnavailable].
func (*Spawner) Start(context.Context, Profile) (*Jail, error) {
	return nil, fmt.Errorf("%w: jails need Linux", sandbox.ErrUnavailable)
}

// PlaceHelper has no helper to place.
func (*Spawner) PlaceHelper(string) error { return errors.ErrUnsupported }

// HelperDigest is empty: there is no helper.
func (*Spawner) HelperDigest() string { return "" }

// Close does nothing.
func (*Spawner) Close() error { return nil }

// Lower has nothing to lower.
func (*Jail) Lower(context.Context, sandbox.Limits) error { return errors.ErrUnsupported }

// CollectFrom has nothing to collect.
func CollectFrom(*os.File, CollectLimits) ([]sandbox.File, error) { return nil, errors.ErrUnsupported }

// Collect has nothing to collect.
func (*Jail) Collect(CollectLimits) ([]sandbox.File, error) {
	return nil, errors.ErrUnsupported
}
