//go:build linux

package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/weir-proxy/weir/agent"
	"github.com/weir-proxy/weir/agent/config"
	"github.com/weir-proxy/weir/identity"
)

func (d *daemon) loadConfig() (*config.Config, error) {
	cfg, err := config.Load(d.o.Config)
	if err == nil && d.o.Socket != "" {
		cfg.Socket = d.o.Socket
	}
	return cfg, err
}

// start puts the first configuration in force.
func (d *daemon) start(cfg *config.Config, set *policySet) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.core.SetAddresses(addresses(cfg)); err != nil {
		return fmt.Errorf("set addresses: %w", err)
	}
	if err := d.core.SetPolicies(set.policies); err != nil {
		return fmt.Errorf("put policies in force: %w", err)
	}
	d.cfg = cfg
	d.inForce(set)
	d.setWorkloads()
	return nil
}

// inForce takes note of a set of policies that is in force, and logs what is new. The
// caller holds d.mu.
func (d *daemon) inForce(set *policySet) {
	diff := set.since(d.set)
	first := d.set == nil
	d.set = set
	if d.policyTrouble.text != "" {
		d.policyTrouble = trouble{}
		d.log.Info("policies can be read again")
	}
	if first || !diff.empty() {
		args := append([]any{"documents", len(set.policies), "files", set.files}, diff.args()...)
		d.log.Info("policies are in force", args...)
		for _, w := range set.warnings {
			d.log.Warn("policy", "warning", w.String())
		}
	}
}

// refuse takes note of why what is in the files is not in force.
func (t *trouble) refuse(log *slog.Logger, err error) {
	if err.Error() == t.text {
		return
	}
	if t.text == "" {
		t.since = time.Now()
	}
	t.text = err.Error()
	log.Error("nothing has changed: what was in force before stays", "error", err)
}

// reloadPolicies reads the policy files again and puts them in force, or nothing.
func (d *daemon) reloadPolicies() {
	d.mu.Lock()
	defer d.mu.Unlock()
	set, err := loadPolicies(d.cfg.Policies)
	if err == nil && !set.since(d.set).empty() {
		err = d.core.SetPolicies(set.policies)
	}
	if err != nil {
		d.policyTrouble.refuse(d.log, err)
		return
	}
	d.inForce(set)
}

// reload reads the configuration and the policies again and puts them in force, or
// nothing of both. The log of records is opened anew.
func (d *daemon) reload() {
	d.mu.Lock()
	defer d.mu.Unlock()
	cfg, err := d.loadConfig()
	var set *policySet
	restart := false
	if err == nil {
		if restart = cfg.Socket != d.cfg.Socket || !sameDocker(cfg.Docker, d.cfg.Docker); restart {
			cfg.Socket, cfg.Docker = d.cfg.Socket, d.cfg.Docker
		}
		if err = d.watch.Watch(cfg.Policies); err == nil {
			set, err = loadPolicies(cfg.Policies)
		}
		if err == nil {
			err = d.change(cfg, set)
		}
		if err != nil {
			err = errors.Join(err, d.watch.Watch(d.cfg.Policies))
		}
	}
	if err != nil {
		d.configTrouble = trouble{} // is told, even if it is the same as before
		d.configTrouble.refuse(d.log, err)
		return
	}
	d.configTrouble = trouble{}
	if err := d.out.open(cfg.Log); err != nil {
		d.log.Error("records go where they went before", "error", err)
	}
	if restart {
		d.log.Warn("socket and discover are as they were: a change of them needs a restart")
	}
	d.log.Info("configuration is in force", "file", d.o.Config, "workloads", len(cfg.Workloads), "addresses", len(cfg.Addresses))
	d.inForce(set)
}

func sameDocker(a, b *config.Docker) bool {
	return a == nil && b == nil || a != nil && b != nil && a.Socket == b.Socket && slices.Equal(a.Unconfined, b.Unconfined) && fmt.Sprint(a.Labels) == fmt.Sprint(b.Labels)
}

// change puts a configuration and policies in force in place of those before. On an error
// those before are. The caller holds d.mu.
func (d *daemon) change(cfg *config.Config, set *policySet) error {
	before, old := d.cfg, d.set
	back := func(err error) error {
		d.cfg = before
		perr := d.core.SetPolicies(old.policies)
		d.setWorkloads()
		return errors.Join(err, d.core.SetAddresses(addresses(before)), perr)
	}
	if relabelled(before, cfg) {
		// A workload must be selected at every moment, under its old labels and under its
		// new ones: for a moment both sets of policies are in force.
		if err := d.core.SetPolicies(slices.Concat(old.policies, set.policies)); err != nil {
			return fmt.Errorf("put policies in force beside those before, while workloads change their labels (change one after the other): %w", err)
		}
		d.cfg = cfg
		d.setWorkloads()
	}
	if err := d.core.SetAddresses(addresses(cfg)); err != nil {
		return back(fmt.Errorf("set addresses: %w", err))
	}
	if err := d.core.SetPolicies(set.policies); err != nil {
		return back(fmt.Errorf("put policies in force: %w", err))
	}
	d.cfg = cfg
	d.setWorkloads()
	return nil
}

// relabelled reports whether a workload of both configurations has other labels.
func relabelled(before, now *config.Config) bool {
	labels := map[string]identity.Labels{}
	for _, w := range before.Workloads {
		labels[w.Name] = w.Labels
	}
	return slices.ContainsFunc(now.Workloads, func(w config.Workload) bool {
		was, ok := labels[w.Name]
		return ok && !was.Equal(w.Labels)
	})
}

// setWorkloads tells the agent of all workloads: those of the configuration and the
// containers. What cannot be put under policy the agent tries again, and says so in its
// status. The caller holds d.mu.
func (d *daemon) setWorkloads() {
	var list []agent.Workload
	for _, w := range d.cfg.Workloads {
		list = append(list, agent.Workload{Name: w.Name, Labels: w.Labels, Netns: w.Netns, PID: w.PID, Cgroup: w.Cgroup, Unconfined: w.Unconfined})
	}
	list = append(list, d.containerWorkloads()...)
	if err := d.core.SetWorkloads(list); err != nil {
		d.log.Error("not every workload is under policy: see weir endpoint list", "error", err)
	}
}

func addresses(cfg *config.Config) []agent.Address {
	var list []agent.Address
	for _, a := range cfg.Addresses {
		list = append(list, agent.Address{Name: a.Name, Labels: a.Labels, CIDRs: a.CIDRs})
	}
	return list
}
