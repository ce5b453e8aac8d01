package cilium

import (
	"bytes"
	"regexp"
	"regexp/syntax"
	"strings"
	"sync"

	ciliumidentity "github.com/cilium/cilium/pkg/identity"
	"github.com/cilium/cilium/pkg/policy"
	"github.com/cilium/cilium/pkg/u8proto"
	proxy "github.com/cilium/proxy/go/cilium/api"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/weir-proxy/weir/l7rules"
)

// envoyAllows judges a request as Cilium's filter in Envoy does with the policy that
// pkg/envoy sends it: every rule of every range of ports around this one counts, a
// deny before an allow, and one without HTTP rules allows every request.
func envoyAllows(filters policy.L4PolicyMaps, id ciliumidentity.NumericIdentity, port uint16, r *l7rules.HTTPRequest) bool {
	allowed := false
	for filter := range filters.Filters() {
		if filter.U8Proto != u8proto.TCP && filter.U8Proto != u8proto.ANY {
			continue
		}
		last := max(filter.Port, filter.EndPort)
		if filter.Port != 0 && (port < filter.Port || port > last) {
			continue
		}
		for selector, rules := range filter.PerSelectorPolicies {
			switch {
			case !selector.IsWildcard() && !selector.Selects(id):
			case rules.IsDeny():
				return false
			case rules == nil || len(rules.HTTP) == 0:
				allowed = true
			default:
				for _, rule := range rules.EnvoyHTTPRules().GetHttpRules() {
					allowed = allowed || envoyMatches(rule, r)
				}
			}
		}
	}
	return allowed
}

func envoyMatches(rule *proxy.HttpNetworkPolicyRule, r *l7rules.HTTPRequest) bool {
	for _, m := range rule.Headers {
		value, present := envoyHeader(r, m.Name)
		var ok bool
		switch s := m.HeaderMatchSpecifier.(type) {
		case *route.HeaderMatcher_PresentMatch:
			ok = present == s.PresentMatch
		case *route.HeaderMatcher_StringMatch:
			switch {
			case !present:
			case s.StringMatch.GetSafeRegex() != nil:
				ok = whole(s.StringMatch.GetSafeRegex().Regex).MatchString(value)
			default:
				ok = value == s.StringMatch.GetExact()
			}
		}
		if ok == m.InvertMatch {
			return false
		}
	}
	return true
}

// envoyHeader is the value that Envoy compares: of a field that comes several times,
// all of them with commas between.
func envoyHeader(r *l7rules.HTTPRequest, name string) (string, bool) {
	switch strings.ToLower(name) {
	case ":path":
		return string(r.Path), true
	case ":method":
		return string(r.Method), true
	case ":authority", "host": // Envoy makes one of the other
		return string(r.Host), len(r.Host) > 0
	}
	var values [][]byte
	for _, h := range r.Header {
		if strings.EqualFold(string(h.Name), name) {
			values = append(values, h.Value)
		}
	}
	return string(bytes.Join(values, []byte(","))), len(values) > 0
}

var compiled sync.Map // pattern -> *regexp.Regexp

// whole is RE2::FullMatch. Go's regexp takes the same expressions, as far as Cilium,
// which checks them with it, lets any through.
func whole(pattern string) *regexp.Regexp {
	if re, ok := compiled.Load(pattern); ok {
		return re.(*regexp.Regexp)
	}
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		panic(err)
	}
	re := regexp.MustCompile(`\A(?:` + tree.String() + `)\z`)
	compiled.Store(pattern, re)
	return re
}
