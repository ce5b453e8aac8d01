package explain

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/weir-proxy/weir/agent/config"
	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/match"
)

// who is one end of a flow.
type who struct {
	text string
	peer l7rules.Peer
	addr netip.Addr // as it was asked for; invalid for labels and entities
	self bool
	// declared says that it is an address that the configuration gives labels to: a
	// destination, and no workload that could be judged.
	declared bool
}

func (w who) String() string { return w.text }

// judged reports whether policies decide for who, and not about it alone.
func (w who) judged() bool { return w.peer.ID.IsEndpoint() && !w.declared }

// resolve is who as the rules see it that name prefixes.
func (w who) resolve(prefixes []netip.Prefix) l7rules.Peer {
	if w.addr.IsValid() && w.peer.ID != identity.Host && !w.peer.ID.IsEndpoint() {
		p := l7rules.PeerOf(w.addr, prefixes)
		p.Names = w.peer.Names
		return p
	}
	return w.peer
}

var entities = []identity.ID{identity.Host, identity.World, identity.WorldIPv4, identity.WorldIPv6, identity.RemoteNode,
	identity.KubeAPIServer, identity.Health, identity.Init, identity.Ingress, identity.Unmanaged}

// parseWho reads labels, a workload or an address of the configuration, an entity or an
// address. Declared addresses are for destinations only, as for the agent.
func parseWho(s string, c *config.Config, destination bool) (who, error) {
	w := who{text: s}
	switch s {
	case "":
		return w, fmt.Errorf("missing: labels such as app=a, an entity such as host or world, or an address")
	case "self":
		w.self = true
		return w, nil
	case string(l7rules.EntityAll), string(l7rules.EntityCluster), string(l7rules.EntityNone):
		return w, fmt.Errorf("%s is a group, not one end of a flow: give labels, host, world or an address", s)
	}
	for _, id := range entities {
		if s == id.String() {
			w.peer.ID = id
			return w, nil
		}
	}
	if strings.Contains(s, "=") {
		labels, err := identity.Workload("", strings.Split(s, ",")...)
		if c != nil && err == nil {
			labels = c.InNamespace(labels)
		}
		w.peer = l7rules.Peer{ID: identity.FirstEndpoint, Labels: labels}
		return w, err
	}
	if addr, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		w.addr = addr.Unmap().WithZone("")
		if w.addr.IsLoopback() || w.addr.IsUnspecified() {
			w.peer.ID = identity.Host
			return w, nil
		}
		w.peer = l7rules.PeerOf(w.addr, nil)
		if a := declaredAt(c, w.addr); a != nil && destination {
			w.peer, w.declared = l7rules.Peer{ID: identity.FirstEndpoint, Labels: a.Labels}, true
		}
		return w, nil
	}
	if strings.Contains(s, "/") {
		return named(w, c, destination)
	}
	switch {
	case !strings.ContainsAny(s, ".@"):
	case !destination:
		return w, fmt.Errorf("%q: nobody who connects is known by a name of DNS: give the address", s)
	default:
		return byName(w)
	}
	return w, fmt.Errorf("%q is neither labels such as app=a, nor an entity such as host or world, nor an address", s)
}

// byName is an address outside that the sender was told for a name: NAME, or NAME@ADDRESS
// where it matters which. Commas separate several names of one address.
func byName(w who) (who, error) {
	name, at, ok := strings.Cut(w.text, "@")
	w.peer = l7rules.Peer{ID: identity.WorldIPv4}
	if ok {
		addr, err := netip.ParseAddr(strings.Trim(at, "[]"))
		if err != nil {
			return w, fmt.Errorf("%q: %q is no address", w.text, at)
		}
		w.addr = addr.Unmap().WithZone("")
		w.peer = l7rules.PeerOf(w.addr, nil)
	}
	for n := range strings.SplitSeq(name, ",") {
		n = strings.ToLower(strings.TrimSuffix(n, "."))
		if last := n[strings.LastIndexByte(n, '.')+1:]; !match.IsName(n) || strings.Trim(last, "0123456789") == "" {
			return w, fmt.Errorf("%q is neither labels such as app=a, nor an entity such as host or world, nor an address, nor a name of DNS", w.text)
		}
		w.peer.Names = append(w.peer.Names, n)
	}
	return w, nil
}

// named finds a workload or a declared address of the configuration by its name.
func named(w who, c *config.Config, destination bool) (who, error) {
	if c == nil {
		return w, fmt.Errorf("%q is a workload of a configuration: give that with --config FILE, or labels such as app=a", w.text)
	}
	var names []string
	for _, wl := range c.Workloads {
		if wl.Name == w.text {
			w.peer = l7rules.Peer{ID: identity.FirstEndpoint, Labels: wl.Labels}
			return w, nil
		}
		names = append(names, wl.Name)
	}
	for _, a := range c.Addresses {
		if a.Name == w.text && !destination {
			return w, fmt.Errorf("%q is a declared address: those are destinations, and nobody who connects is known by them", w.text)
		}
		if a.Name == w.text {
			w.peer, w.declared = l7rules.Peer{ID: identity.FirstEndpoint, Labels: a.Labels}, true
			return w, nil
		}
		names = append(names, a.Name)
	}
	const shown = 8
	if len(names) > shown {
		names = append(names[:shown], "...")
	}
	if len(names) == 0 {
		return w, fmt.Errorf("%q: the configuration has no workloads", w.text)
	}
	return w, fmt.Errorf("%q is no workload of the configuration, which has %s", w.text, strings.Join(names, ", "))
}

// declaredAt is the declared address with the longest prefix that contains addr.
func declaredAt(c *config.Config, addr netip.Addr) *config.Address {
	if c == nil {
		return nil
	}
	var best *config.Address
	bits := -1
	for i := range c.Addresses {
		for _, p := range c.Addresses[i].CIDRs {
			if p.Contains(addr) && p.Bits() > bits {
				best, bits = &c.Addresses[i], p.Bits()
			}
		}
	}
	return best
}

// splitPort takes the port off WHO:PORT. An IPv6 address stands in brackets.
func splitPort(s string) (string, uint16, error) {
	if s == "" {
		return "", 0, fmt.Errorf("missing: WHO:PORT, such as host:8080")
	}
	i := strings.LastIndexByte(s, ':')
	if i < 0 || strings.HasSuffix(s, "]") {
		return "", 0, fmt.Errorf("%q has no port: write %s:PORT", s, s)
	}
	port, err := strconv.ParseUint(s[i+1:], 10, 16)
	if err != nil || port == 0 {
		return "", 0, fmt.Errorf("%q: %q is no port: 1 to 65535", s, s[i+1:])
	}
	if who := s[:i]; strings.Contains(who, ":") && !strings.Contains(who, "[") && !strings.Contains(who, "=") {
		return "", 0, fmt.Errorf("%q: put an IPv6 address in brackets, [::1]:80", s)
	}
	return s[:i], uint16(port), nil
}
