package cnp

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
)

func TestCases(t *testing.T) {
	archive, err := txtar.ParseFile("testdata/cases.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range archive.Files {
		t.Run(f.Name, func(t *testing.T) { runCase(t, string(f.Data)) })
	}
	if len(archive.Files) < 100 {
		t.Errorf("only %d cases found in the file", len(archive.Files))
	}
}

// Any order of documents, rules and entries means the same.
func TestCasesInReverse(t *testing.T) {
	archive, err := txtar.ParseFile("testdata/cases.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range archive.Files {
		t.Run(f.Name, func(t *testing.T) {
			w, expectations := load(t, string(f.Data))
			if w.err != nil {
				return
			}
			slices.Reverse(w.policies)
			for _, p := range w.policies {
				slices.Reverse(p.Rules)
				for i := range p.Rules {
					slices.Reverse(p.Rules[i].Ports)
					for j := range p.Rules[i].Ports {
						slices.Reverse(p.Rules[i].Ports[j].HTTP)
					}
				}
			}
			w.check(t, slices.DeleteFunc(expectations, func(s string) bool { return strings.HasPrefix(s, "reason:") }))
		})
	}
}

func runCase(t *testing.T, text string) {
	w, expectations := load(t, text)
	w.check(t, expectations)
}

type world struct {
	policies []*l7rules.Policy
	warnings []Warning
	err      error
	prefixes []netip.Prefix
}

var macros = strings.NewReplacer(
	"$A", "{matchLabels: {app: a}}", "$B", "{matchLabels: {app: b}}",
	"$80", `ports: [{port: "80", protocol: TCP}]`,
	"$41", strings.TrimSuffix(strings.Repeat(`{port: "80"}, `, 41), ", "),
	"$$$", "---",
)

func load(t *testing.T, text string) (*world, []string) {
	t.Helper()
	documents, rest, ok := strings.Cut(text, "...\n")
	if !ok {
		t.Fatal("no line ... in this case")
	}
	w := &world{}
	for i, doc := range strings.Split(documents, "---\n") {
		if strings.TrimSpace(doc) == "" {
			continue
		}
		if !strings.HasPrefix(doc, "apiVersion") {
			head := fmt.Sprintf("apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p%d}\nspec:\n", i)
			if !strings.Contains(doc, "endpointSelector") {
				head += "  endpointSelector: {matchLabels: {app: s}}\n"
			}
			doc = head + "  " + strings.ReplaceAll(strings.TrimSpace(doc), "\n", "\n  ") + "\n"
		}
		ps, warnings, err := Parse(fmt.Sprintf("p%d.yaml", i), []byte(macros.Replace(doc)))
		w.policies = append(w.policies, ps...)
		w.warnings = append(w.warnings, warnings...)
		if err != nil {
			w.err = err
		}
	}
	for _, p := range w.policies {
		for _, r := range p.Rules {
			for _, c := range r.Peers.CIDRs {
				w.prefixes = append(append(w.prefixes, c.Prefix), c.Except...)
			}
		}
	}
	return w, strings.Split(strings.TrimSpace(rest), "\n")
}

func (w *world) check(t *testing.T, expectations []string) {
	t.Helper()
	var reason string
	sawError, sawWarning := false, 0
	for _, line := range expectations {
		word, text, _ := strings.Cut(line, ": ")
		switch word {
		case "error":
			sawError = true
			if w.err == nil || !strings.Contains(w.err.Error(), text) {
				t.Errorf("error %v, want one with %q", w.err, text)
			}
		case "warn":
			sawWarning++
			if !slices.ContainsFunc(w.warnings, func(w Warning) bool { return strings.Contains(w.String(), text) }) {
				t.Errorf("warnings %v, want one with %q", w.warnings, text)
			}
		case "reason":
			if !strings.Contains(reason, text) {
				t.Errorf("reason %q, want one with %q", reason, text)
			}
		default:
			if w.err != nil {
				break
			}
			reason = w.checkFlow(t, line)
		}
	}
	if w.err != nil && !sawError {
		t.Errorf("unexpected error: %v", w.err)
	}
	if w.err == nil && len(w.warnings) != sawWarning {
		t.Errorf("%d warnings, want %d: %v", len(w.warnings), sawWarning, w.warnings)
	}
}

var flowLine = regexp.MustCompile(`^(?:(udp|icmp|sctp) )?([^ ]+?)>(?:([^ ]+):)?([0-9]+)(?: ([A-Za-z]+) (/[^ ]*|\*)((?: [^ ]+=[^ ]*)*))? ([FD])(?: (proxy|direct))?$`)

// checkFlow runs one line and returns the reason of a refusal.
func (w *world) checkFlow(t *testing.T, line string) string {
	t.Helper()
	m := flowLine.FindStringSubmatch(line)
	if m == nil {
		t.Fatalf("cannot read %q", line)
	}
	proto := map[string]uint8{"": l7rules.ProtoTCP, "udp": l7rules.ProtoUDP, "icmp": 1, "sctp": l7rules.ProtoSCTP}[m[1]]
	from, to := m[2], m[3]
	if to == "" {
		to = "s"
	}
	port, err := strconv.ParseUint(m[4], 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	var req *l7rules.HTTPRequest
	if m[5] != "" {
		req = &l7rules.HTTPRequest{Proto: "HTTP/1.1", Method: []byte(m[5]), Path: []byte(m[6])}
		for _, h := range strings.Fields(m[7]) {
			name, value, _ := strings.Cut(h, "=")
			value = strings.ReplaceAll(value, "%20", " ")
			if name == "Host" {
				req.Host = []byte(value)
				continue
			}
			req.Header = append(req.Header, l7rules.HeaderField{Name: []byte(name), Value: []byte(value)})
		}
	}
	verdict, proxied, reason := "F", false, ""
	for _, side := range []struct {
		dir           flow.Direction
		subject, peer string
	}{{flow.Egress, from, to}, {flow.Ingress, to, from}} {
		labels, ok := endpoints(t)[side.subject]
		if !ok {
			continue
		}
		ep, err := l7rules.Compile(w.policies, labels)
		if err != nil {
			t.Fatal(err)
		}
		e := ep.Lookup(side.dir, w.peer(t, side.peer), proto, uint16(port))
		d := l7rules.Decision{Policy: e.Policy, Reason: e.Reason}
		if e.Action != l7rules.ActionDeny {
			d.Verdict = flow.Forwarded
		}
		if e.Action == l7rules.ActionRedirect {
			proxied = true
			if req != nil {
				d = e.Rules.Decide(req)
			}
		}
		if !d.Allowed() {
			if verdict = "D"; reason == "" {
				reason = side.dir.String() + ": " + d.Policy + " " + d.Reason
			}
		}
	}
	if verdict != m[8] {
		t.Errorf("%s: is %s (%s)", line, verdict, reason)
	}
	if m[9] != "" && proxied != (m[9] == "proxy") {
		t.Errorf("%s: proxied %v", line, proxied)
	}
	if verdict == "D" && reason == "" {
		t.Errorf("%s: refused without a reason", line)
	}
	return reason
}

func endpoints(t *testing.T) map[string]identity.Labels {
	t.Helper()
	all := map[string]identity.Labels{}
	for name, texts := range map[string][]string{
		"s": {"app=s"}, "a": {"app=a"}, "b": {"app=b"}, "t": {"app=t"}, "n": {"tier=x"},
		"x": {"app=a", "k8s:io.kubernetes.pod.namespace=other"}, "d": {"container:image=nginx"},
	} {
		ls, err := identity.Workload("", texts...)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = ls
	}
	return all
}

func (w *world) peer(t *testing.T, name string) l7rules.Peer {
	t.Helper()
	if ls, ok := endpoints(t)[name]; ok {
		return l7rules.Peer{ID: identity.FirstEndpoint + identity.ID(name[0]), Labels: ls}
	}
	switch name {
	case "h":
		return l7rules.Peer{ID: identity.Host}
	case "w":
		name = "203.0.113.9"
	}
	addr, err := netip.ParseAddr(strings.Trim(name, "[]"))
	if err != nil {
		t.Fatal(err)
	}
	return l7rules.PeerOf(addr, w.prefixes)
}
