package l7rules

import (
	"slices"
	"strconv"

	"github.com/weir-proxy/weir/l7rules/flow"
)

// kafkaRule is a KafkaRule with what it decides.
type kafkaRule struct {
	*KafkaRule
	decision Decision
}

func (rs *Ruleset) decideKafka(r *KafkaRequest) Decision {
	var deny, allow *Decision
	for i := range rs.denyKafka {
		if rs.denyKafka[i].denies(r) {
			deny = &rs.denyKafka[i].decision
			break
		}
	}
	for i := range rs.allowKafka {
		if rs.allowKafka[i].allows(r) {
			allow = &rs.allowKafka[i].decision
			break
		}
	}
	if allow == nil && len(rs.allowKafka) > 0 && isKafkaHello(r) {
		allow = &Decision{Verdict: flow.Forwarded, Reason: "every client begins with it"}
	}
	d, ok := rs.settle(deny, allow)
	if !ok {
		d.Reason = rs.explainKafka(r)
	}
	return d
}

// explainKafka says why no rule allows a request, by the rule that came nearest.
func (rs *Ruleset) explainKafka(r *KafkaRequest) string {
	what := "no rule allows " + KafkaAPIName(r.APIKey)
	switch r.Resource {
	case KafkaTopic, KafkaGroup, KafkaTransaction:
		what += " of " + r.Resource.String() + " " + clip(r.Name)
	case KafkaCluster:
		what += " of the cluster"
	}
	best, why, nearest := -1, "", -1
	for i := range rs.allowKafka {
		if n, text := rs.allowKafka[i].differs(r); n > best {
			best, why, nearest = n, text, i
		}
	}
	if nearest < 0 {
		return what
	}
	return what + "; nearest " + rs.allowKafka[nearest].decision.Policy + ": " + why
}

// differs says what is the first field that does not match, and how many do before it.
func (k *KafkaRule) differs(r *KafkaRequest) (matched int, text string) {
	switch {
	case k.APIKeys != nil && !slices.Contains(k.APIKeys, r.APIKey):
		return 0, "apiKey is " + KafkaAPIName(k.APIKeys[0])
	case k.Role != "" && !k.Role.has(r):
		if k.Role.has(&KafkaRequest{APIKey: r.APIKey, Resource: KafkaNone}) {
			return 0, "role " + string(k.Role) + " is not about a " + r.Resource.String() + " here"
		}
		return 0, "role " + string(k.Role) + " does not include it"
	case k.APIVersion != nil && *k.APIVersion != r.APIVersion:
		return 1, "apiVersion is " + strconv.Itoa(int(*k.APIVersion)) + ", not " + strconv.Itoa(int(r.APIVersion))
	case k.ClientID != "" && k.ClientID != r.ClientID:
		return 2, "clientID is " + clip(k.ClientID) + ", not " + clip(r.ClientID)
	}
	for _, n := range []struct {
		kind KafkaResource
		name KafkaName
	}{{KafkaTopic, k.Topic}, {KafkaGroup, k.Group}, {KafkaTransaction, k.TransactionalID}} {
		if n.kind == r.Resource && !n.name.matches(r.Name) {
			return 3, n.kind.String() + " is " + clip(n.name.text())
		}
	}
	return 3, "it names a topic, group or transactional id"
}
