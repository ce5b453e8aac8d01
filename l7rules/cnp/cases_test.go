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
						pr := &p.Rules[i].Ports[j]
						slices.Reverse(pr.HTTP)
						slices.Reverse(pr.DNS)
						slices.Reverse(pr.TLS)
						slices.Reverse(pr.Kafka)
					}
				}
			}
			w.check(t, slices.DeleteFunc(expectations, func(s string) bool { return strings.HasPrefix(s, "reason:") || strings.HasPrefix(s, "conflict:") }))
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
	"$53", `ports: [{port: "53", protocol: ANY}]`,
	"$443", `ports: [{port: "443", protocol: TCP}]`,
	"$9092", `ports: [{port: "9092", protocol: TCP}]`,
	"$OURS", "apiVersion: weir-proxy.dev/v1alpha1\nkind: Policy\nmetadata: {name: own}\nspec:\n  endpointSelector: {matchLabels: {app: s}}",
	"$TRIAL", "apiVersion: weir-proxy.dev/v1alpha1\nkind: Policy\nmetadata: {name: audited}\nspec:\n  endpointSelector: {matchLabels: {app: s}}\n  audit: true",
	"$NP", "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: np}\nspec:\n  podSelector: {matchLabels: {app: s}}",
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
		if !strings.HasPrefix(doc, "apiVersion") && !strings.HasPrefix(doc, "$") {
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
		case "conflict":
			_, err := l7rules.Compile(w.policies, endpoints(t)["s"])
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("resolved with %v, want an error with %q", err, text)
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

var flowLine = regexp.MustCompile(`^(?:(udp|icmp|sctp) )?([^ ]+?)>(?:([^ ]+):)?([0-9]+)(?: (.*))? ([FDA])(?: (proxy|direct))?$`)

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
	req := request(t, strings.Fields(m[5]))
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
		d := e.Decision()
		if e.Action == l7rules.ActionRedirect {
			proxied = true
			if req != nil {
				d = e.Rules.Decide(req)
			}
		}
		switch {
		case !d.Allowed():
			verdict = "D"
		case d.Verdict == flow.Audit && verdict == "F":
			verdict = "A"
		}
		if d.Verdict != flow.Forwarded && reason == "" {
			reason = side.dir.String() + ": " + d.Policy + " " + d.Reason
		}
	}
	if verdict != m[6] {
		t.Errorf("%s: is %s (%s)", line, verdict, reason)
	}
	if m[7] != "" && proxied != (m[7] == "proxy") {
		t.Errorf("%s: proxied %v", line, proxied)
	}
	if verdict != "F" && strings.HasSuffix(reason, ":  ") {
		t.Errorf("%s: %s without a reason", line, verdict)
	}
	return reason
}

// request reads what comes after the port in a line.
func request(t *testing.T, words []string) flow.Request {
	t.Helper()
	if len(words) == 0 {
		return nil
	}
	http := l7rules.HTTPRequest{Proto: "HTTP/1.1", Method: []byte(words[0])}
	arg := ""
	if len(words) > 1 {
		arg = words[1]
		http.Path = []byte(arg)
	}
	switch words[0] {
	case "dns":
		return &l7rules.DNSQuery{Name: arg, QType: 1}
	case "sni":
		return &l7rules.ClientHello{ServerName: strings.Trim(arg, "-")}
	case "kafka":
		return kafkaRequest(t, words[1:])
	}
	for _, h := range words[min(2, len(words)):] {
		name, value, _ := strings.Cut(h, "=")
		value = strings.ReplaceAll(value, "%20", " ")
		if name == "Host" {
			http.Host = []byte(value)
			continue
		}
		http.Header = append(http.Header, l7rules.HeaderField{Name: []byte(name), Value: []byte(value)})
	}
	if words[0] == "grpc" {
		http.Method, http.Path = []byte("POST"), []byte("/"+arg)
		return &l7rules.GRPCRequest{HTTPRequest: http}
	}
	return &http
}

func kafkaRequest(t *testing.T, words []string) *l7rules.KafkaRequest {
	t.Helper()
	key, ok := l7rules.KafkaAPIKey(words[0])
	if !ok {
		t.Fatalf("no request of Kafka: %q", words)
	}
	r := &l7rules.KafkaRequest{APIKey: key, Resource: l7rules.KafkaNone}
	for _, w := range words[1:] {
		name, value, _ := strings.Cut(w, "=")
		switch name {
		case "topic":
			r.Resource, r.Name = l7rules.KafkaTopic, value
		case "group":
			r.Resource, r.Name = l7rules.KafkaGroup, value
		case "txn":
			r.Resource, r.Name = l7rules.KafkaTransaction, value
		case "cluster":
			r.Resource = l7rules.KafkaCluster
		case "client":
			r.ClientID = value
		case "v":
			v, err := strconv.ParseInt(value, 10, 16)
			if err != nil {
				t.Fatal(err)
			}
			r.APIVersion = int16(v)
		default:
			t.Fatalf("cannot read %q", w)
		}
	}
	return r
}

func endpoints(t *testing.T) map[string]identity.Labels {
	t.Helper()
	all := map[string]identity.Labels{}
	for name, texts := range map[string][]string{
		"s": {"app=s"}, "a": {"app=a"}, "b": {"app=b"}, "t": {"app=t"}, "n": {"tier=x"},
		"x": {"app=a", "k8s:io.kubernetes.pod.namespace=other", "k8s:io.cilium.k8s.namespace.labels.owner=ops"}, "d": {"container:image=nginx"},
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
	names, text, told := strings.Cut(name, "@")
	if !told {
		text = names
	}
	addr, err := netip.ParseAddr(strings.Trim(text, "[]"))
	if err != nil {
		t.Fatal(err)
	}
	peer := l7rules.PeerOf(addr, w.prefixes)
	if told {
		peer.Names = strings.Split(names, ",")
	}
	return peer
}
