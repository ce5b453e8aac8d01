//go:build linux

package run

import (
	"log/slog"
	"os"

	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// datapathConfig is what stands between a run's command and the network.
type datapathConfig struct {
	ID          string   // of the run; its pins go to BPFFS/weir/ID, which exists and is empty
	Cgroup      *os.File // the run's cgroup
	ProxyCgroup *os.File // the cgroup of this process
	BPFFS       string
	Policies    []*l7rules.Policy
	Labels      identity.Labels
	Name        string // "namespace/name"
	Audit       bool
	Sink        flow.Sink
	Log         *slog.Logger
}

// datapath is a policy in force: the kernel's, or in tests none at all.
type datapath interface {
	// Close takes the policy out of force and removes its pins.
	Close() error
	// Err delivers the error that ended the proxy before Close; nothing passes then. It is
	// closed when the proxy has ended.
	Err() <-chan error
}
