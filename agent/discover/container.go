//go:build linux

package discover

import (
	"cmp"
	"slices"
	"strings"

	"github.com/weir-proxy/weir/agent"
	"github.com/weir-proxy/weir/identity"
)

// Container is a container that runs, or whose first process is about to.
type Container struct {
	ID string // 64 hex digits
	// Workload is what it is to the agent, named "default/NAME": the network namespace
	// of its first process, or its cgroup if it uses the host's network.
	Workload agent.Workload
	// Shares are the names of containers that joined its network namespace. They are
	// judged as this one.
	Shares []string
	// Holds are the capabilities, of it and of those that share its namespace, with
	// which a process can act below the hooks that judge it: NET_ADMIN and the like.
	// Workload.Unconfined is false where they are more than Docker gives to everybody and
	// Config.Unconfined does not name it.
	Holds []string
	// Refused says why it cannot be put under policy, "" if it can.
	Refused string
}

// Workloads are those of the containers that are not refused.
func Workloads(list []Container) []agent.Workload {
	var w []agent.Workload
	for _, c := range list {
		if c.Refused == "" {
			w = append(w, c.Workload)
		}
	}
	return w
}

// record is what is known of a container.
type record struct {
	id      string
	name    string
	mode    string // of its network
	labels  identity.Labels
	chosen  bool // by Config.Labels
	holds   []string
	running bool // by the engine's word

	pid   int // 0 it does not run
	netns string
	group string
}

// joined is the container whose network namespace this one uses, "" its own.
func (r *record) joined() string {
	id, _ := strings.CutPrefix(r.mode, "container:")
	if id == r.mode {
		return ""
	}
	return id
}

// wanted makes the containers that are to be endpoints of what is known, sorted by
// name. A namespace that several containers share is one endpoint, named by the
// container that made it, if Config.Labels chooses any of them.
func (w *watcher) wanted() []Container {
	var own, host []*record
	byNetns := map[string][]*record{}
	for _, r := range w.known {
		switch {
		case r.pid == 0:
		case r.netns == w.machine.netns:
			host = append(host, r)
		default:
			if byNetns[r.netns] == nil {
				own = append(own, r)
			}
			byNetns[r.netns] = append(byNetns[r.netns], r)
		}
	}
	var list []Container
	for _, r := range own {
		sharers := byNetns[r.netns]
		slices.SortFunc(sharers, func(a, b *record) int {
			if a, b := a.joined() == "", b.joined() == ""; a != b {
				if a {
					return -1
				}
				return 1
			}
			return cmp.Compare(a.name, b.name)
		})
		if c, ok := w.container(sharers); ok {
			c.Workload.PID = sharers[0].pid
			for _, s := range sharers {
				if s.mode == "host" {
					c.Refused = "it uses the host's network, but another one than the agent: run the agent in the host's network namespace"
				}
			}
			list = append(list, c)
		}
	}
	for _, r := range host {
		if c, ok := w.container([]*record{r}); ok {
			c.Workload.Cgroup = r.group
			if r.group == "" || r.group == "/" {
				c.Refused = "it uses the host's network and has no cgroup of its own in cgroup v2"
			}
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b Container) int { return cmp.Compare(a.Workload.Name, b.Workload.Name) })
	return list
}

// container makes one of those that share a namespace, the first of which names it.
func (w *watcher) container(sharers []*record) (Container, bool) {
	first := sharers[0]
	c := Container{ID: first.id}
	c.Workload.Name = identity.DefaultNamespace + "/" + first.name
	c.Workload.Labels = first.labels
	chosen := false
	for _, r := range sharers {
		chosen = chosen || r.chosen
		if r != first {
			c.Shares = append(c.Shares, r.name)
		}
		for _, h := range r.holds {
			if !slices.Contains(c.Holds, h) {
				c.Holds = append(c.Holds, h)
			}
		}
	}
	slices.Sort(c.Holds)
	// The engine's word counts, for while the container is being started its processes
	// are the runtime's, which hold everything.
	c.Workload.Unconfined = w.cfg.allows(c.Workload.Name) ||
		!slices.ContainsFunc(c.Holds, func(h string) bool { return h != netRaw })
	return c, chosen
}

func (c *Config) allows(name string) bool {
	_, short, _ := strings.Cut(name, "/")
	return slices.Contains(c.Unconfined, name) || slices.Contains(c.Unconfined, short)
}

func equal(a, b Container) bool {
	return a.ID == b.ID && a.Refused == b.Refused && slices.Equal(a.Shares, b.Shares) && slices.Equal(a.Holds, b.Holds) &&
		a.Workload.Name == b.Workload.Name && a.Workload.Labels.Equal(b.Workload.Labels) &&
		a.Workload.PID == b.Workload.PID && a.Workload.Cgroup == b.Workload.Cgroup && a.Workload.Unconfined == b.Workload.Unconfined
}
