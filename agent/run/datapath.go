//go:build linux

package run

import (
	"context"
	"errors"
	"fmt"

	"github.com/weir-proxy/weir/agent"
)

// kernelDatapath is a run's policy in force: an agent with one workload.
type kernelDatapath struct {
	agent *agent.Agent
	stop  context.CancelFunc
	errs  chan error
}

// startDatapath puts a policy in force: when it returns, whatever a process in
// the run's cgroup sends is judged.
func startDatapath(ctx context.Context, cfg datapathConfig) (datapath, error) {
	a, err := agent.Start(agent.Config{
		Name:         cfg.ID,
		BPFFS:        cfg.BPFFS,
		Cgroup:       cfg.Cgroup,
		ProxyCgroup:  cfg.ProxyCgroup,
		CgroupRoot:   fmt.Sprintf("/proc/self/fd/%d", cfg.Cgroup.Fd()),
		CutWithProxy: true,
		Audit:        cfg.Audit,
		Sink:         cfg.Sink,
		Log:          cfg.Log,
	})
	if err != nil {
		return nil, err
	}
	if err := a.SetPolicies(cfg.Policies); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	if err := a.SetWorkloads([]agent.Workload{{Name: cfg.Name, Labels: cfg.Labels, Cgroup: "/"}}); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	d := &kernelDatapath{agent: a, errs: make(chan error, 1)}
	ctx, d.stop = context.WithCancel(context.WithoutCancel(ctx)) // the run ends it, not a signal
	go func() {
		defer close(d.errs)
		if err := a.Serve(ctx); err != nil {
			d.errs <- err
		}
	}()
	return d, nil
}

// Err implements datapath.
func (d *kernelDatapath) Err() <-chan error { return d.errs }

// Close implements datapath.
func (d *kernelDatapath) Close() error {
	d.stop()
	return d.agent.Close()
}
