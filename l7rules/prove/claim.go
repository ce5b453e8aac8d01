package prove

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/match"
)

// Claim is a set of flows and what is claimed of it: that none of them gets through or,
// if Only, that nothing else does.
//
// The scope of an Only is the end that stands first: "from A to B" says that A reaches
// nothing but B, "to B from A" that nobody but A reaches B.
type Claim struct {
	Only bool
	Text string

	From, To Who
	ToFirst  bool
	Proto    uint8 // 0 for every protocol
	First    uint16
	Last     uint16
	Requests *Requests // nil for connections, whatever is said on them
}

// Who is a set of ends. The zero value is everybody.
type Who struct {
	text     string
	entity   l7rules.Entity
	selector *identity.Selector // of endpoints and declared addresses
	prefix   netip.Prefix
	name     *match.Name      // of addresses outside
	labels   *identity.Labels // of something known, and of whatever policies cannot tell from it
}

func (w *Who) String() string {
	if w.text == "" {
		return "anybody"
	}
	return w.text
}

// ParseClaim reads a claim:
//
//	from app=ci to app=db tcp/5432
//	from app=ci to world
//	to app=db from app=api tcp/80-90 http GET /.* host db\.test header X-Token: 42
//
// Requests are http METHOD PATH [host HOST] [header "NAME: VALUE"], grpc SERVICE/METHOD,
// dns NAME, sni NAME or kafka API [RESOURCE], names with wildcards as in a policy.
//
// WHO is labels that an endpoint has (key=value; in a list key as well) or has not
// (key!=value, !key), with commas between; an entity; an address or prefix; as a destination
// also a name of DNS, which may have wildcards; or the name of something known. Labels are
// about the namespace default unless one of them is the namespace, as everywhere. Method,
// path and host are regular expressions, as in a policy, and match the whole. Words with
// blanks stand in double quotes.
func ParseClaim(text string, only bool, known Known) (*Claim, error) {
	c := &Claim{Only: only, Text: text, Last: 65535}
	words, err := splitWords(text)
	if err != nil {
		return nil, err
	}
	p := &claimParser{words: words}
	seen := map[string]bool{}
	for len(p.words) > 0 {
		word := p.words[0]
		p.words = p.words[1:]
		key, _, _ := strings.Cut(word, "/")
		switch {
		case (key == "from" || key == "to") && key == word:
			var w Who
			if w, err = parseWho(p.argument(), word == "to", known); err != nil {
				return nil, fmt.Errorf("%s: %w", word, err)
			}
			if word == "from" {
				c.From = w
			} else {
				c.To = w
				c.ToFirst = !seen["from"]
			}
		case key == "tcp" || key == "udp" || key == "sctp":
			key = "protocol"
			err = c.ports(word)
		case word == "http" || word == "grpc" || word == "dns" || word == "sni" || word == "kafka":
			key = "requests"
			if c.Requests, err = p.requests(word); err != nil {
				err = fmt.Errorf("%s: %w", word, err)
			}
		default:
			return nil, fmt.Errorf("%q: write from WHO, to WHO, tcp/PORT (or udp, sctp), http METHOD PATH (or grpc, dns, sni, kafka)", word)
		}
		if err != nil {
			return nil, err
		}
		if seen[key] {
			return nil, fmt.Errorf("%q: %s is there twice", word, key)
		}
		seen[key] = true
	}
	if !seen["from"] && !seen["to"] {
		return nil, fmt.Errorf("%q: write from WHO to WHO, for example from app=ci to app=db", text)
	}
	if c.Requests != nil && c.Proto != 0 && c.Proto != l7rules.ProtoTCP && (c.Requests.rules.protocol != l7rules.DNS || c.Proto != l7rules.ProtoUDP) {
		return nil, fmt.Errorf("%q: that goes over tcp", text)
	}
	return c, nil
}

// splitWords takes a text apart at blanks; double quotes keep some together.
func splitWords(text string) ([]string, error) {
	var words []string
	for i, quoted := range strings.Split(text, `"`) {
		if i%2 == 1 {
			words = append(words, quoted)
		} else {
			words = append(words, strings.Fields(quoted)...)
		}
	}
	if strings.Count(text, `"`)%2 == 1 {
		return nil, fmt.Errorf("%q: a quote that nothing ends", text)
	}
	return words, nil
}

type claimParser struct{ words []string }

// argument takes the next word, "" where there is none.
func (p *claimParser) argument() string {
	if len(p.words) == 0 {
		return ""
	}
	w := p.words[0]
	p.words = p.words[1:]
	return w
}

// next takes the word behind a keyword, if that comes next.
func (p *claimParser) next(keyword string) (string, bool) {
	if len(p.words) < 2 || p.words[0] != keyword {
		return "", false
	}
	w := p.words[1]
	p.words = p.words[2:]
	return w, true
}

func (c *Claim) ports(word string) error {
	name, ports, ok := strings.Cut(word, "/")
	c.Proto = map[string]uint8{"tcp": l7rules.ProtoTCP, "udp": l7rules.ProtoUDP, "sctp": l7rules.ProtoSCTP}[name]
	if !ok {
		return nil
	}
	first, last, isRange := strings.Cut(ports, "-")
	if !isRange {
		last = first
	}
	a, err1 := strconv.ParseUint(first, 10, 16)
	b, err2 := strconv.ParseUint(last, 10, 16)
	if err1 != nil || err2 != nil || a == 0 || a > b {
		return fmt.Errorf("%q: write %s/PORT or %s/FIRST-LAST, 1 to 65535", word, name, name)
	}
	c.First, c.Last = uint16(a), uint16(b)
	return nil
}

func parseWho(s string, destination bool, known Known) (Who, error) {
	w := Who{text: s}
	switch {
	case s == "":
		return w, fmt.Errorf("missing: labels such as app=a, an entity such as host or world, an address or a prefix")
	case s == "any" || s == "anybody":
		return Who{}, nil
	}
	for _, e := range l7rules.Entities() {
		if s == string(e) {
			if !e.Inhabited() || e == l7rules.EntityNone {
				return w, fmt.Errorf("nobody is %s here", s)
			}
			w.entity = e
			return w, nil
		}
	}
	if strings.ContainsAny(s, "=!") {
		sel, err := parseSelector(s)
		w.selector = &sel
		return w, err
	}
	if strings.Contains(s, "*") && destination {
		n, err := match.CompileNamePattern(s)
		w.name = &n
		return w, err
	}
	if addr, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		addr = addr.Unmap()
		w.prefix = netip.PrefixFrom(addr, addr.BitLen())
		return w, nil
	}
	if p, err := netip.ParsePrefix(s); err == nil {
		w.prefix = p.Masked()
		return w, nil
	}
	for i := range known.Workloads {
		if known.Workloads[i].Name == s {
			w.labels = &known.Workloads[i].Labels
			return w, nil
		}
	}
	for i := range known.Addresses {
		if known.Addresses[i].Name == s && destination {
			w.labels = &known.Addresses[i].Labels
			return w, nil
		}
	}
	if strings.Contains(s, ".") && !strings.Contains(s, "/") && destination {
		n, err := match.CompileName(s)
		w.name = &n
		return w, err
	}
	return w, fmt.Errorf("%q is neither labels such as app=a, nor an entity such as host or world, nor an address, nor the name of a workload that is known", s)
}

// parseSelector reads key=value, key!=value, !key and key with commas between.
func parseSelector(s string) (identity.Selector, error) {
	var reqs []identity.Requirement
	namespace := false
	for part := range strings.SplitSeq(s, ",") {
		r := identity.Requirement{Op: identity.In}
		key, value, ok := strings.Cut(part, "=")
		switch {
		case strings.HasPrefix(part, "!") && !ok:
			key, r.Op = part[1:], identity.DoesNotExist
		case !ok:
			r.Op = identity.Exists
		case strings.HasSuffix(key, "!"):
			key, r.Op = strings.TrimSuffix(key, "!"), identity.NotIn
		}
		if ok {
			if err := identity.CheckValue(value); err != nil {
				return identity.Selector{}, err
			}
			r.Values = []string{value}
		}
		var err error
		if r.Source, r.Key, err = identity.ParseSelectorKey(key); err != nil {
			return identity.Selector{}, err
		}
		namespace = namespace || r.Key == identity.NamespaceKey
		reqs = append(reqs, r)
	}
	if !namespace {
		reqs = append(reqs, identity.Requirement{Source: identity.SourceK8s, Key: identity.NamespaceKey, Op: identity.In, Values: []string{identity.DefaultNamespace}})
	}
	return identity.NewSelector(reqs...)
}
