//go:build linux

package redirect

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/weir-proxy/weir/bpf"
	"github.com/weir-proxy/weir/identity"
)

// EndpointConfig names a workload: the sockets opened in a cgroup, or those of
// a network namespace.
type EndpointConfig struct {
	// ID is the endpoint's number on this machine, 1 or more and below 1<<31.
	ID       uint32
	Identity identity.ID
	// Cgroup is the id of a cgroup v2 directory (its inode); 0 if the endpoint
	// is a network namespace.
	Cgroup uint64
	// CgroupDir is that directory; needed to find sockets in cgroups below it that
	// are older than the endpoint.
	CgroupDir string
	// Netns is the path of the network namespace; "" is the caller's. The processes
	// of a cgroup endpoint are in it.
	Netns string
}

// Endpoint is a workload under policy.
type Endpoint struct {
	cfg     EndpointConfig
	d       *Datapath
	place   *place
	locals  *localAddrs
	rows    map[bpf.WeirPolicyKey]bpf.WeirAction // what it wrote into the policy map
	written bpf.WeirEndpointFlags
}

// AddEndpoint puts a workload under policy. When it returns, every new connection
// of the workload is judged.
func (d *Datapath) AddEndpoint(cfg EndpointConfig, p Policy) (_ *Endpoint, err error) {
	if cfg.ID == 0 || cfg.ID >= 1<<31 {
		return nil, fmt.Errorf("add endpoint: its number is %d", cfg.ID)
	}
	if cfg.Cgroup == 1 {
		return nil, errors.New("add endpoint: cgroup 1 is the root, which holds every process that has no cgroup of its own")
	}
	if cfg.Cgroup == 0 && cfg.Netns == "" {
		return nil, errors.New("add endpoint: neither a cgroup nor a network namespace")
	}
	if p.Ingress.Enforced && !d.cfg.Ingress {
		return nil, errors.New("add endpoint: this instance does not judge what arrives")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.endpoints[cfg.ID] != nil {
		return nil, fmt.Errorf("add endpoint %d: there is one of that number", cfg.ID)
	}
	e := &Endpoint{cfg: cfg, d: d, rows: map[bpf.WeirPolicyKey]bpf.WeirAction{}}
	defer func() {
		if err != nil {
			err = fmt.Errorf("add endpoint %d: %w", cfg.ID, err)
			e.close()
		}
	}()
	if e.place, err = d.openPlace(cfg.Netns); err != nil {
		return nil, err
	}
	if e.locals, err = watchLocals(e); err != nil {
		return nil, err
	}
	if err := e.setPolicy(p); err != nil {
		return nil, err
	}
	// From here on its sockets are its own.
	if cfg.Cgroup != 0 {
		err = d.objs.ByCgroup.Put(cfg.Cgroup, cfg.ID)
	} else {
		err = d.objs.ByNetns.Put(e.place.ns.cookie, cfg.ID)
	}
	if err != nil {
		return nil, fmt.Errorf("write endpoint's address: %w", err)
	}
	d.endpoints[cfg.ID] = e
	if d.cfg.Ingress {
		if err := e.place.seedListening(); err != nil {
			delete(d.endpoints, cfg.ID)
			return nil, err
		}
		if cfg.CgroupDir != "" {
			// Whoever is connected was so before: the policy is for those who come.
			if _, err := d.findInherited(); err != nil {
				delete(d.endpoints, cfg.ID)
				return nil, err
			}
		}
	}
	return e, nil
}

// Block denies a workload every socket until it is added: for one that could not be.
func (d *Datapath) Block(cfg EndpointConfig) error {
	// Its sockets belong to an endpoint that the kernel knows nothing of.
	if cfg.Cgroup != 0 {
		return d.objs.ByCgroup.Put(cfg.Cgroup, cfg.ID)
	}
	ns, err := openNamespace(cfg.Netns)
	if err != nil {
		return fmt.Errorf("block endpoint %d: %w", cfg.ID, err)
	}
	return d.objs.ByNetns.Put(ns.cookie, cfg.ID)
}

// Unblock takes Block back.
func (d *Datapath) Unblock(cfg EndpointConfig) error {
	if cfg.Cgroup != 0 {
		return d.objs.ByCgroup.Delete(cfg.Cgroup)
	}
	ns, err := openNamespace(cfg.Netns)
	if err != nil {
		return nil // it is gone, and its cookie is never used again
	}
	return d.objs.ByNetns.Delete(ns.cookie)
}

// Remove sets the workload free: its new connections are nobody's any more.
func (e *Endpoint) Remove() error {
	e.d.mu.Lock()
	defer e.d.mu.Unlock()
	delete(e.d.endpoints, e.cfg.ID)
	return e.close()
}

// close takes the endpoint out of the maps, first what makes it one. The caller
// holds d.mu.
func (e *Endpoint) close() error {
	if e.place == nil {
		return nil
	}
	var errs []error
	drop := func(m *ebpf.Map, k any) {
		if err := m.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			errs = append(errs, err)
		}
	}
	if e.cfg.Cgroup != 0 {
		drop(e.d.objs.ByCgroup, e.cfg.Cgroup)
	} else {
		drop(e.d.objs.ByNetns, e.place.ns.cookie)
	}
	drop(e.d.objs.Endpoints, e.cfg.ID)
	if e.locals != nil {
		errs = append(errs, e.locals.close())
	}
	for k := range e.rows {
		drop(e.d.objs.Policy, k)
	}
	return errors.Join(append(errs, e.place.leave())...)
}
