package l7rules

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/weir-proxy/weir/l7rules/flow"
)

// maxReasonValue bounds what a reason repeats of a request or a policy, in bytes.
const maxReasonValue = 200

// clip writes bytes that anybody may have chosen so that a header, a log line and a
// terminal can take them: printable ASCII, at most maxReasonValue bytes.
func clip[T string | []byte](v T) string {
	s := string(v[:min(len(v), maxReasonValue)])
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			quoted := strconv.QuoteToASCII(s)
			s = quoted[1 : len(quoted)-1]
			break
		}
	}
	if len(s) > maxReasonValue || len(v) > maxReasonValue {
		return s[:min(len(s), maxReasonValue)] + "..."
	}
	return s
}

// explainHTTP says why no rule allows a request, by the rule that came nearest: the
// one whose first field that differs comes last.
func (rs *Ruleset) explainHTTP(r *HTTPRequest) string {
	what := "no rule allows " + clip(r.Method) + " " + clip(r.Path)
	h, matched := rs.nearest(r)
	if h == nil {
		return what
	}
	return what + "; nearest " + h.decision.Policy + ": " + h.differs(r, matched)
}

// matched counts the fields that match before the first one that does not.
func (h *httpRule) matched(r *HTTPRequest) int {
	switch {
	case h.method != nil && !h.method.Match(r.Method):
		return 0
	case h.path != nil && !h.path.Match(r.Path):
		return 1
	case h.host != nil && !h.host.Match(r.Host):
		return 2
	}
	for i := range h.headers {
		if !h.headers[i].matches(r.Header) {
			return 3 + i
		}
	}
	return 3 + len(h.headers)
}

func (h *httpRule) differs(r *HTTPRequest, matched int) string {
	if h.grpc != "" && matched < 2 {
		return "grpc " + clip(h.grpc) + " does not match"
	}
	switch matched {
	case 0:
		return "method " + clip(h.method.String()) + " does not match"
	case 1:
		return "path " + clip(h.path.String()) + " does not match"
	case 2:
		if len(r.Host) == 0 {
			return "host " + clip(h.host.String()) + " does not match: the request names none"
		}
		return "host " + clip(h.host.String()) + " does not match " + clip(r.Host)
	}
	return h.headers[matched-3].differs(r)
}

// logged says which of the headers that a rule only logs a request is without.
func (h *httpRule) logged(r *HTTPRequest) string {
	for i := range h.log {
		if !h.log[i].matches(r.Header) {
			return h.log[i].differs(r) + ", which is only logged"
		}
	}
	return ""
}

func (m *headerMatch) differs(r *HTTPRequest) string {
	n := 0
	for _, f := range r.Header {
		if equalFold(f.Name, m.name) {
			n++
		}
	}
	switch {
	case n == 0:
		return "header " + clip(m.name) + " is missing"
	case n > 1:
		return "header " + clip(m.name) + " comes " + strconv.Itoa(n) + " times"
	}
	return "header " + clip(m.name) + " is not " + clip(m.value)
}

// explainPeer says why no rule allows a peer on a port.
func (d *direction) explainPeer(dir flow.Direction, peer Peer, proto uint8, port uint16) string {
	list, preposition := "egress", "to"
	if dir == flow.Ingress {
		list, preposition = "ingress", "from"
	}
	at := PortRange{proto, port, port}
	if port == 0 {
		at.Last = 65535 // a protocol without ports
	}
	what := fmt.Sprintf("no %s rule allows %s %s %s", list, at, preposition, clip(peer.String()))
	var portOnly, peerOnly string
	labels := peer.labels()
	for i := range d.rules {
		r := &d.rules[i]
		if r.Deny {
			continue
		}
		covers := r.coversPort(proto, port)
		switch {
		case r.Peers.match(peer, labels) && peerOnly == "":
			peerOnly = "; nearest " + r.ref + ": allows " + clip(r.portString())
		case covers && portOnly == "":
			portOnly = "; nearest " + r.ref + ": allows " + clip(strings.Join(r.Peers.keys(), ", "))
			if len(r.Peers.keys()) == 0 {
				portOnly = "; nearest " + r.ref + ": allows nobody"
			}
			switch {
			case len(r.Peers.CIDRs) > 0 && !peer.ID.IsWorld():
				portOnly += "; CIDR rules never match " + notWorld(preposition, peer)
			case len(r.Peers.Names) > 0 && !peer.ID.IsWorld():
				portOnly += "; toFQDNs never matches " + notWorld(preposition, peer)
			case len(r.Peers.Names) > 0 && len(peer.Names) == 0:
				portOnly += "; no answer told it a name for this address"
			}
		}
	}
	switch {
	case peerOnly != "":
		return what + peerOnly
	case portOnly != "":
		return what + portOnly
	case d.closedBy != "":
		return what + "; " + d.closedBy + " closes " + list
	}
	return what
}

func notWorld(preposition string, peer Peer) string {
	prefix := preposition
	if peer.ID.IsEndpoint() {
		return "endpoints: use " + prefix + "Endpoints"
	}
	return "entity " + peer.ID.String() + ": use " + prefix + "Entities: [" + peer.ID.String() + "]"
}

func (r *Rule) coversPort(proto uint8, port uint16) bool {
	if r.AnyPort {
		return true
	}
	for i := range r.Ports {
		for _, p := range r.Ports[i].Ports {
			if p.contains(proto, port) {
				return true
			}
		}
	}
	return false
}

func (r *Rule) portString() string {
	var all []string
	for i := range r.Ports {
		for _, p := range r.Ports[i].Ports {
			all = append(all, p.String())
		}
	}
	if len(all) == 0 {
		return "no port"
	}
	return strings.Join(all, ", ")
}
