package learn

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"

	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/cnp"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// Policy writes a CiliumNetworkPolicy that lets through what was noted. It selects
// endpoints with the given labels, "key=value" as `weir run --label` takes them; note is a
// comment on top. What it wrote has been read back and asked: an error says what it would
// not let through.
func (b *Book) Policy(name string, labels []string, note string) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var w bytes.Buffer
	for l := range strings.Lines(note) {
		fmt.Fprintf(&w, "# %s\n", strings.TrimRight(l, "\n"))
	}
	fmt.Fprintf(&w, "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: %s}\nspec:\n", quote(name))
	if len(labels) == 0 {
		fmt.Fprint(&w, "  endpointSelector: {}\n")
	} else {
		fmt.Fprint(&w, "  endpointSelector:\n    matchLabels:\n")
		for _, l := range labels {
			k, v, _ := strings.Cut(l, "=")
			fmt.Fprintf(&w, "      %s: %s\n", quote(k), quote(v))
		}
	}
	b.writeEgress(&w)
	if err := b.check(w.Bytes(), labels); err != nil {
		return w.Bytes(), fmt.Errorf("check the policy that was learned: %w", err)
	}
	return w.Bytes(), nil
}

func (b *Book) writeEgress(w *bytes.Buffer) {
	if len(b.dests) == 0 {
		fmt.Fprint(w, "  egress: [{}] # it reached nobody\n")
		return
	}
	fmt.Fprint(w, "  egress:\n")
	// What one peer was asked on several ports stands in one entry, and peers that were
	// asked the same share it.
	ports := map[netip.Addr]*bytes.Buffer{}
	for _, d := range sorted(b.dests, compareDestinations) {
		if ports[d.addr] == nil {
			ports[d.addr] = &bytes.Buffer{}
		}
		writePort(ports[d.addr], d, b.dests[d])
	}
	peers := map[string][]netip.Addr{} // by what they were asked
	var order []string
	for _, addr := range sorted(ports, netip.Addr.Compare) {
		p := ports[addr].String()
		if !addr.IsValid() {
			fmt.Fprintf(w, "  - toEntities: [host]\n    toPorts:\n%s", p)
			continue
		}
		if peers[p] == nil {
			order = append(order, p)
		}
		peers[p] = append(peers[p], addr)
	}
	for _, p := range order {
		fmt.Fprint(w, "  - toCIDR:\n")
		for _, a := range peers[p] {
			fmt.Fprintf(w, "    - %s\n", netip.PrefixFrom(a, a.BitLen()))
		}
		fmt.Fprintf(w, "    toPorts:\n%s", p)
	}
}

func writePort(w *bytes.Buffer, d destination, did *deeds) {
	proto := "TCP"
	if d.proto == l7rules.ProtoUDP {
		proto = "UDP"
	}
	fmt.Fprintf(w, "    - ports: [{port: \"%d\", protocol: %s}]\n", d.port, proto)
	if did.whole > 0 || len(did.requests) == 0 {
		if len(did.requests) > 0 {
			fmt.Fprint(w, "      # HTTP, and something else too\n")
		}
		return
	}
	fmt.Fprint(w, "      rules:\n        http:\n")
	for _, r := range rules(did.requests, d.addr.IsValid()) {
		fmt.Fprintf(w, "        - {method: %s, path: %s", quote(r.method), quote(r.path))
		if r.host != "" {
			fmt.Fprintf(w, ", host: %s", quote(r.host))
		}
		fmt.Fprint(w, "}\n")
	}
}

// quote writes a YAML scalar, in which a backslash stands for itself.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// check asks the policy about everything that was noted.
func (b *Book) check(text []byte, labels []string) error {
	policies, _, err := cnp.Parse("learned", text)
	if err != nil {
		return err
	}
	self, err := identity.Workload("", labels...)
	if err != nil {
		return err
	}
	compiled, err := l7rules.Compile(policies, self)
	if err != nil {
		return err
	}
	if !compiled.Selected() {
		return fmt.Errorf("it does not select %s", self)
	}
	for d, did := range b.dests {
		peer := l7rules.Peer{ID: identity.Host}
		if d.addr.IsValid() {
			peer = l7rules.PeerOf(d.addr, compiled.Prefixes(flow.Egress))
		}
		entry := compiled.Lookup(flow.Egress, peer, d.proto, d.port)
		if did.whole > 0 && entry.Action != l7rules.ActionAllow {
			return fmt.Errorf("port %d of %v: %s", d.port, peer, entry.Reason)
		}
		for r := range did.requests {
			if entry.Action == l7rules.ActionAllow || strings.Contains(r.path, many) {
				continue
			}
			path := r.path
			if r.query != "" {
				path += "?" + r.query
			}
			req := &l7rules.HTTPRequest{Proto: "HTTP/1.1", Method: []byte(r.method), Path: []byte(path), Host: []byte(r.host)}
			if v := entry.Rules.Decide(req); !v.Allowed() {
				return fmt.Errorf("%s %s of %v: %s", r.method, path, peer, v.Reason)
			}
		}
	}
	return nil
}
