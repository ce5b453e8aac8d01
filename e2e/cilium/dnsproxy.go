package cilium

import (
	"regexp"
	"strings"

	"github.com/cilium/cilium/pkg/fqdn/dns"
	"github.com/cilium/cilium/pkg/fqdn/matchpattern"
	ciliumidentity "github.com/cilium/cilium/pkg/identity"
	"github.com/cilium/cilium/pkg/policy"
	"github.com/cilium/cilium/pkg/u8proto"

	"github.com/weir-proxy/weir/l7rules"
)

// dnsProxyAllows judges a query as pkg/fqdn/dnsproxy does, which knows the rules for the
// very port that it stands behind; and as it would if it knew all that cover the port, as
// Envoy does.
func dnsProxyAllows(filters policy.L4PolicyMaps, id ciliumidentity.NumericIdentity, proto uint8, port uint16, q *l7rules.DNSQuery) (allowed, byAll bool) {
	name := strings.ToLower(dns.FQDN(q.Name))
	for filter := range filters.Filters() {
		if uint8(filter.U8Proto) != proto && filter.U8Proto != u8proto.ANY || filter.Port != 0 && (port < filter.Port || port > max(filter.Port, filter.EndPort)) {
			continue
		}
		for selector, rules := range filter.PerSelectorPolicies {
			if (selector.IsWildcard() || selector.Selects(id)) && dnsRulesMatch(rules, name) {
				byAll = true
				allowed = allowed || filter.Port == port && filter.EndPort == 0
			}
		}
	}
	return allowed, byAll
}

// dnsRulesMatch is dnsproxy.GeneratePattern and the use of what it generates. That package
// is not imported because of what it would bring with it.
func dnsRulesMatch(rules *policy.PerSelectorPolicy, name string) bool {
	if rules == nil || len(rules.DNS) == 0 {
		return true
	}
	for _, rule := range rules.DNS {
		var patterns []string
		if rule.MatchName != "" {
			patterns = append(patterns, matchpattern.ToUnAnchoredRegexp(strings.ToLower(dns.FQDN(rule.MatchName))))
		}
		if rule.MatchPattern != "" {
			patterns = append(patterns, matchpattern.ToUnAnchoredRegexp(matchpattern.Sanitize(rule.MatchPattern)))
		}
		for _, pattern := range patterns {
			if regexp.MustCompile("^(?:" + pattern + ")$").MatchString(name) {
				return true
			}
		}
	}
	return false
}
