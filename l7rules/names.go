package l7rules

import (
	"slices"
	"strings"

	"github.com/weir-proxy/weir/l7rules/match"
)

// nameRule is a NameRule with what it decides.
type nameRule struct {
	name     match.Name
	decision Decision
}

// decideName judges the name of a DNSQuery or a ClientHello. Where a deny rule is, what is
// no name is refused by it: no name, or bytes of which a pattern says nothing, must not be
// the way around it. To DNS the root is a name.
func (rs *Ruleset) decideName(name string) Decision {
	var deny, allow *Decision
	odd := !match.IsName(name) && !(rs.protocol == DNS && (name == "" || name == "."))
	for i := range rs.denyNames {
		if odd || rs.denyNames[i].name.Match(name) {
			deny = &rs.denyNames[i].decision
			break
		}
	}
	// A hello without a name is in nobody's list, not even in one that has "*".
	if rs.protocol == DNS || name != "" {
		for i := range rs.allowNames {
			if rs.allowNames[i].name.Match(name) {
				allow = &rs.allowNames[i].decision
				break
			}
		}
	}
	d, ok := rs.settle(deny, allow)
	if !ok {
		d.Reason = rs.explainName(name)
	}
	return d
}

// explainName says why no rule allows a name, by the rule whose end is most like it.
func (rs *Ruleset) explainName(name string) string {
	what := "no rule allows "
	switch {
	case rs.protocol == TLS && name == "":
		return what + "a ClientHello without a server name"
	case rs.protocol == TLS:
		what += "server name " + clip(name)
	default:
		what += "the name " + clip(name)
	}
	best, nearest := -1, -1
	for i := range rs.allowNames {
		if n := commonLabels(rs.allowNames[i].name.Key(), name); n > best {
			best, nearest = n, i
		}
	}
	if nearest < 0 {
		return what
	}
	r := &rs.allowNames[nearest]
	what += "; nearest " + r.decision.Policy + ": " + clip(r.name.String()) + " does not match"
	switch key := r.name.Key(); {
	case key == "*."+canonicalName(name), key == "**."+canonicalName(name):
		what += ", it is for what is below"
	case strings.HasPrefix(key, "*.") && strings.HasSuffix(canonicalName(name), key[1:]):
		what += ": * is one label, ** is any number"
	}
	return what
}

func canonicalName(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// commonLabels counts the labels at the end that two names share.
func commonLabels(a, b string) int {
	as, bs := strings.Split(a, "."), strings.Split(canonicalName(b), ".")
	slices.Reverse(as)
	slices.Reverse(bs)
	n := 0
	for n < len(as) && n < len(bs) && as[n] == bs[n] {
		n++
	}
	return n
}
