//go:build linux

package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weir-proxy/weir/agent"
	"github.com/weir-proxy/weir/agent/api"
	"github.com/weir-proxy/weir/agent/config"
	"github.com/weir-proxy/weir/agent/discover"
	"github.com/weir-proxy/weir/agent/watch"
	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// core is what the daemon keeps in step with its files; *agent.Agent.
type core interface {
	SetPolicies([]*l7rules.Policy) error
	SetAddresses([]agent.Address) error
	SetWorkloads([]agent.Workload) error
}

// daemon keeps an agent in step with its configuration, its policy files, and the
// containers there are.
type daemon struct {
	o     Options
	log   *slog.Logger
	ring  *api.Ring
	out   *output
	watch *watch.Watcher
	core  core

	mu         sync.Mutex
	cfg        *config.Config
	set        *policySet
	containers []discover.Container
	// Why what is in the files is not in force.
	configTrouble trouble // until the next SIGHUP that succeeds
	policyTrouble trouble
}

// trouble is an error that lasts.
type trouble struct {
	text  string // "" there is none
	since time.Time
}

// Run is `weir agent`: it puts what the configuration says in force and keeps it so until
// ctx is done, and then leaves nothing behind. SIGHUP has it read everything again.
//
// After an error of Run what could not be judged any more is refused, until the next
// agent on the same socket.
func Run(ctx context.Context, o Options) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, unix.SIGHUP)
	defer signal.Stop(hup)
	signal.Ignore(unix.SIGPIPE) // a reader of our notes that goes away must not take us with it

	d := newDaemon(o)
	cfg, err := d.loadConfig()
	if err != nil {
		return err
	}
	if d.watch, err = watch.New(d.log); err != nil {
		return err
	}
	defer d.watch.Close()
	if err := d.watch.Watch(cfg.Policies); err != nil { // before they are read
		return err
	}
	set, err := loadPolicies(cfg.Policies)
	if err != nil {
		return err
	}
	l, err := api.Listen(cfg.Socket)
	if err != nil {
		return err
	}
	defer l.Release()
	if err := d.out.open(cfg.Log); err != nil {
		return err
	}
	defer d.out.close()
	k, err := startKernel(cfg.Socket, d.sink, d.log)
	if err != nil {
		return err
	}
	d.core = k.agent
	if err := d.start(cfg, set); err != nil {
		return errors.Join(err, k.close())
	}
	if err := k.sweep(); err != nil {
		d.log.Error("remove what is left", "error", err)
	}
	return d.serve(ctx, k, l, hup)
}

func newDaemon(o Options) *daemon {
	d := &daemon{o: o, ring: api.NewRing(), log: slog.New(slog.NewTextHandler(o.Stderr, nil))}
	d.out = &output{stderr: o.Stderr, log: d.log}
	return d
}

func (d *daemon) sink(r *flow.Record) {
	d.ring.Sink(r)
	d.out.sink(r)
}

// serve runs everything until ctx is done or the proxy fails.
func (d *daemon) serve(ctx context.Context, k *kernel, l *api.Listener, hup <-chan os.Signal) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	failed := make(chan error, 2)
	wg.Go(func() {
		if err := k.agent.Serve(ctx); err != nil {
			failed <- err
		}
	})
	wg.Go(func() {
		status := func() agent.Status { return d.status(k.agent.Status()) }
		if err := api.Serve(ctx, l, status, d.ring); err != nil {
			d.log.Error("commands get no answer any more", "error", err)
		}
	})
	if docker := d.cfg.Docker; docker != nil {
		wg.Go(func() {
			if err := d.discover(ctx, docker, k.cgroupRoot()); err != nil {
				d.log.Error("containers are not looked for any more", "error", err)
			}
		})
	}
	d.log.Info("agent is ready", "socket", d.cfg.Socket, "pid", os.Getpid())
	err := d.follow(ctx, hup, failed)
	cancel()
	wg.Wait()
	if err != nil {
		// Not k.close, which would set the workloads free.
		return fmt.Errorf("%w: what it would have judged is refused until weir agent is started again", err)
	}
	if err := k.close(); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	d.log.Info("agent has stopped")
	return nil
}

// follow keeps up with the files until ctx is done or something fails.
func (d *daemon) follow(ctx context.Context, hup <-chan os.Signal, failed <-chan error) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case <-hup:
			d.reload()
		case <-d.watch.Changes():
			d.reloadPolicies()
		}
	}
}

// status completes the agent's.
func (d *daemon) status(s agent.Status) agent.Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	s.Version = d.o.Version
	if d.out != nil {
		s.Counters.RecordsLost = d.out.lost()
	}
	for _, t := range []trouble{d.configTrouble, d.policyTrouble} {
		switch {
		case t.text == "":
		case s.Policy.Error == "":
			s.Policy.Error, s.Policy.Since = t.text, t.since
		case s.Policy.Error != t.text:
			s.Policy.Error += "\n" + t.text
			if t.since.Before(s.Policy.Since) {
				s.Policy.Since = t.since
			}
		}
	}
	d.addContainers(&s)
	return s
}
