//go:build linux

package daemon

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/weir-proxy/weir/agent"
	"github.com/weir-proxy/weir/agent/config"
	"github.com/weir-proxy/weir/agent/discover"
)

// discover follows the containers of a Docker engine until ctx is done.
func (d *daemon) discover(ctx context.Context, docker *config.Docker, cgroupRoot string) error {
	return discover.Watch(ctx, discover.Config{
		Socket:     docker.Socket,
		CgroupRoot: cgroupRoot,
		Labels:     docker.Labels,
		Unconfined: docker.Unconfined,
		Log:        d.log,
	}, func(list []discover.Container) error {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.containers = list
		d.setWorkloads()
		return nil
	})
}

const nameTaken = "the configuration has a workload of this name"

// taken are the names of the configuration's workloads. The caller holds d.mu.
func (d *daemon) taken() map[string]bool {
	names := map[string]bool{}
	for _, w := range d.cfg.Workloads {
		names[w.Name] = true
	}
	return names
}

// containerWorkloads are the containers' workloads with the labels of their namespace.
// The caller holds d.mu.
func (d *daemon) containerWorkloads() []agent.Workload {
	taken := d.taken()
	var list []agent.Workload
	for _, w := range discover.Workloads(d.containers) {
		if taken[w.Name] {
			d.log.Warn("container is not under policy", "container", w.Name, "reason", nameTaken)
			continue
		}
		w.Labels = d.cfg.InNamespace(w.Labels)
		list = append(list, w)
	}
	return list
}

// addContainers says of the endpoints which containers they are, and adds those that are
// not under policy. The caller holds d.mu.
func (d *daemon) addContainers(s *agent.Status) {
	const shortID = 12 // as docker ps shows it
	taken := d.taken()
	for _, c := range d.containers {
		place := "docker " + c.ID[:min(shortID, len(c.ID))]
		if len(c.Shares) > 0 {
			place += ", and in its namespace " + strings.Join(c.Shares, ", ")
		}
		reason := c.Refused
		if taken[c.Workload.Name] {
			reason = nameTaken
		}
		if reason == "" {
			for i := range s.Endpoints {
				if s.Endpoints[i].Name == c.Workload.Name {
					s.Endpoints[i].Place = place
				}
			}
			continue
		}
		st := agent.EndpointStatus{Name: c.Workload.Name, Labels: []string{}, Place: place, State: agent.Refused, Reason: reason}
		for _, l := range c.Workload.Labels.All() {
			st.Labels = append(st.Labels, l.String())
		}
		s.Endpoints = append(s.Endpoints, st)
	}
	slices.SortStableFunc(s.Endpoints, func(x, y agent.EndpointStatus) int { return cmp.Compare(x.Name, y.Name) })
}
