package explain

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules"
)

// who is one end of a flow.
type who struct {
	text string
	peer l7rules.Peer
	addr netip.Addr // as it was asked for; invalid for labels and entities
	self bool
}

func (w who) String() string { return w.text }

// resolve is who as the rules see it that name prefixes.
func (w who) resolve(prefixes []netip.Prefix) l7rules.Peer {
	if w.addr.IsValid() && w.peer.ID != identity.Host {
		return l7rules.PeerOf(w.addr, prefixes)
	}
	return w.peer
}

var entities = []identity.ID{identity.Host, identity.World, identity.WorldIPv4, identity.WorldIPv6, identity.RemoteNode,
	identity.KubeAPIServer, identity.Health, identity.Init, identity.Ingress, identity.Unmanaged}

// parseWho reads labels, an entity or an address.
func parseWho(s string) (who, error) {
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
		w.peer = l7rules.Peer{ID: identity.FirstEndpoint, Labels: labels}
		return w, err
	}
	if addr, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		w.addr = addr.Unmap().WithZone("")
		if w.addr.IsLoopback() || w.addr.IsUnspecified() {
			w.peer.ID = identity.Host
		} else {
			w.peer = l7rules.PeerOf(w.addr, nil)
		}
		return w, nil
	}
	switch {
	case strings.Contains(s, "/"):
		return w, fmt.Errorf("%q: workloads of a configuration are not supported yet: give the labels, such as app=a", s)
	case strings.Contains(s, "."):
		return w, fmt.Errorf("%q: names of DNS are not supported yet: give the address", s)
	}
	return w, fmt.Errorf("%q is neither labels such as app=a, nor an entity such as host or world, nor an address", s)
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
	if who := s[:i]; strings.Contains(who, ":") && !strings.HasPrefix(who, "[") && !strings.Contains(who, "=") {
		return "", 0, fmt.Errorf("%q: put an IPv6 address in brackets, [::1]:80", s)
	}
	return s[:i], uint16(port), nil
}
