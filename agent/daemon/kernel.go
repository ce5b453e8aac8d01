//go:build linux

package daemon

import (
	"crypto/rand"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/weir-proxy/weir/agent"
	"github.com/weir-proxy/weir/agent/internal/cgroup"
	"github.com/weir-proxy/weir/agent/internal/mounts"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// kernel is an agent's half in the kernel, and where its pins are.
type kernel struct {
	agent *agent.Agent
	root  *cgroup.Root
	pins  string // the directory of all instances' pins
	name  string // of this instance
	ours  string // what the names of all instances with this socket begin with
}

// startKernel loads and attaches the programs. What an agent with the same socket that
// died has left stays in force until sweep.
func startKernel(socket string, sink flow.Sink, log *slog.Logger) (_ *kernel, err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("weir agent needs root to put policies into the kernel: start it with sudo")
	}
	k := &kernel{}
	if k.root, err = cgroup.OpenRoot(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			k.root.Close()
		}
	}()
	bpffs, err := mounts.OpenBPFFS()
	if err != nil {
		return nil, err
	}
	everybody, err := k.root.Open("/")
	if err != nil {
		return nil, err
	}
	defer everybody.Close()
	own, err := k.root.Of("self")
	if err != nil {
		return nil, err
	}
	proxyDir, err := k.root.Open(own)
	if err != nil {
		return nil, err
	}
	defer proxyDir.Close()
	h := fnv.New64a()
	h.Write([]byte(socket))
	var random [4]byte
	rand.Read(random[:])
	k.ours = fmt.Sprintf("agent-%016x-", h.Sum64())
	k.name = fmt.Sprintf("%s%x", k.ours, random)
	k.pins = filepath.Join(bpffs, "weir")
	k.agent, err = agent.Start(agent.Config{
		Name:        k.name,
		BPFFS:       bpffs,
		Cgroup:      everybody,
		ProxyCgroup: proxyDir,
		CgroupRoot:  k.cgroupRoot(),
		Sink:        sink,
		Log:         log,
	})
	if err != nil {
		return nil, err
	}
	raiseFileLimit()
	return k, nil
}

// sweep removes the pins of dead agents that had the same socket. Until then their
// programs refuse what the agent would have had to judge, so it is called when the
// workloads are under policy again.
func (k *kernel) sweep() error {
	entries, err := os.ReadDir(k.pins)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("sweep up after a dead agent: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), k.ours) && e.Name() != k.name {
			if err := os.RemoveAll(filepath.Join(k.pins, e.Name())); err != nil {
				errs = append(errs, fmt.Errorf("sweep up after a dead agent: %w", err))
			}
		}
	}
	return errors.Join(errs...)
}

// cgroupRoot is a path that groups can be appended to.
func (k *kernel) cgroupRoot() string { return strings.TrimSuffix(k.root.Path("/"), "/") }

func (k *kernel) close() error {
	return errors.Join(k.agent.Close(), k.root.Close())
}

// fileLimit is how many descriptors an agent wants to be allowed: four sockets for each
// of a thousand namespaces, two for each of a hundred thousand connections.
const fileLimit = 1 << 18

// raiseFileLimit does what it can: without it, connections beyond the limit are refused.
func raiseFileLimit() {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) == nil && l.Cur < fileLimit {
		unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: fileLimit, Max: max(l.Max, fileLimit)})
	}
}
