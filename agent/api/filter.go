package api

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/weir-proxy/weir/l7rules/flow"
)

// Filter says which records somebody wants to see: those that have one of each list
// that is not empty. The zero value is all of them.
type Filter struct {
	Verdicts []string // FORWARDED, DROPPED, AUDIT, ERROR; in any case
	Types    []string // http-request, or what it begins with before a '-': http
	From, To []string // see Who
}

// Who explains what Filter.From and To hold.
const Who = "a name (shop/orders), a namespace (shop/), an entity (host, world), an address, a prefix (10.0.0.0/8), or an identity's number"

// Check returns what is wrong with a filter.
func (f *Filter) Check() error {
	_, err := f.compile()
	return err
}

// query is a filter as part of a request to the agent.
func (f *Filter) query() url.Values {
	return url.Values{"verdict": f.Verdicts, "type": f.Types, "from": f.From, "to": f.To}
}

func filterOf(q url.Values) *Filter {
	return &Filter{Verdicts: q["verdict"], Types: q["type"], From: q["from"], To: q["to"]}
}

// matcher is a filter made ready: it runs for every record, and nobody can add one
// meanwhile.
type matcher struct {
	verdicts []flow.Verdict
	types    []string
	from, to []who
}

var allVerdicts = []flow.Verdict{flow.Forwarded, flow.Dropped, flow.Audit, flow.Error}

func (f *Filter) compile() (*matcher, error) {
	m := &matcher{types: f.Types}
	for _, s := range f.Verdicts {
		i := slices.IndexFunc(allVerdicts, func(v flow.Verdict) bool { return strings.EqualFold(s, v.String()) })
		if i < 0 {
			return nil, fmt.Errorf("unknown verdict %q: FORWARDED, DROPPED, AUDIT or ERROR", s)
		}
		m.verdicts = append(m.verdicts, allVerdicts[i])
	}
	for _, c := range []struct {
		texts []string
		to    *[]who
	}{{f.From, &m.from}, {f.To, &m.to}} {
		for _, s := range c.texts {
			w, err := parseWho(s)
			if err != nil {
				return nil, err
			}
			*c.to = append(*c.to, w)
		}
	}
	return m, nil
}

func (m *matcher) match(r *flow.Record) bool {
	return (len(m.verdicts) == 0 || slices.Contains(m.verdicts, r.Verdict)) &&
		(len(m.types) == 0 || isType(m.types, r)) &&
		(len(m.from) == 0 || isParty(m.from, &r.Source)) &&
		(len(m.to) == 0 || isParty(m.to, &r.Destination))
}

func isType(types []string, r *flow.Record) bool {
	is := r.Type
	if is == "" && r.Request != nil {
		is = r.Request.Type()
	}
	for _, t := range types {
		if is == t || len(is) > len(t) && is[len(t)] == '-' && is[:len(t)] == t {
			return true
		}
	}
	return false
}

// who is one of Filter.From or To. One of its fields is set.
type who struct {
	name      string
	namespace string // with its slash
	numbered  bool
	id        uint32
	prefix    netip.Prefix
}

func parseWho(s string) (who, error) {
	if n, err := strconv.ParseUint(s, 10, 32); err == nil {
		return who{numbered: true, id: uint32(n)}, nil
	}
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		a = a.Unmap().WithZone("")
		return who{prefix: netip.PrefixFrom(a, a.BitLen())}, nil
	}
	if p, err := netip.ParsePrefix(s); err == nil {
		return who{prefix: p}, nil
	}
	namespace, name, slash := strings.Cut(s, "/")
	_, err := netip.ParseAddr(namespace)
	switch {
	case namespace == "" || strings.Contains(name, "/") || err == nil:
		return who{}, fmt.Errorf("%q is nobody: give %s", s, Who)
	case slash && name == "":
		return who{namespace: s}, nil
	}
	return who{name: s}, nil
}

func isParty(list []who, p *flow.Party) bool {
	for i := range list {
		switch w := &list[i]; {
		case w.name != "":
			if p.Name == w.name {
				return true
			}
		case w.namespace != "":
			if strings.HasPrefix(p.Name, w.namespace) {
				return true
			}
		case w.numbered:
			if p.Identity == w.id {
				return true
			}
		case w.prefix.Contains(p.Addr.Addr().WithZone("")):
			return true
		}
	}
	return false
}
