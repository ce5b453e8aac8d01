package prove

import (
	"fmt"
	"slices"
	"strings"

	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// kafkaRequests are requests that stand for all, as far as rules can tell them apart: every
// API key that has a name and one that has none, each version and client that some rule
// names and another, and of each kind of resource a name of each class. Those that clients
// do send come first.
func kafkaRequests(rules []*l7rules.KafkaRule) ([]flow.Request, error) {
	keys := []int16{}
	for _, name := range append([]string{"produce", "fetch", "joingroup", "initproducerid", "createtopics"}, l7rules.KafkaAPINames()...) {
		if key, ok := l7rules.KafkaAPIKey(name); ok && !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	versions, clients := []int16{}, []string{""}
	var topics, groups, transactions []l7rules.KafkaName
	for _, r := range rules {
		for _, key := range r.APIKeys {
			if !slices.Contains(keys, key) {
				keys = append(keys, key)
			}
		}
		if r.APIVersion != nil && !slices.Contains(versions, *r.APIVersion) {
			versions = append(versions, *r.APIVersion)
		}
		if !slices.Contains(clients, r.ClientID) {
			clients = append(clients, r.ClientID)
		}
		topics, groups, transactions = append(topics, r.Topic), append(groups, r.Group), append(transactions, r.TransactionalID)
	}
	// One that nobody names, of keys and of versions.
	for _, list := range []*[]int16{&keys, &versions} {
		other := int16(0)
		for slices.Contains(*list, other) || list == &keys && other < 1000 {
			other++
		}
		*list = append(*list, other)
	}
	var resources []l7rules.KafkaRequest
	for _, kind := range []struct {
		resource l7rules.KafkaResource
		names    []l7rules.KafkaName
	}{{l7rules.KafkaTopic, topics}, {l7rules.KafkaGroup, groups}, {l7rules.KafkaTransaction, transactions}} {
		for _, name := range kafkaNames(kind.names) {
			resources = append(resources, l7rules.KafkaRequest{Resource: kind.resource, Name: name})
		}
	}
	resources = append(resources, l7rules.KafkaRequest{Resource: l7rules.KafkaNone}, l7rules.KafkaRequest{Resource: l7rules.KafkaCluster})
	if n := len(keys) * len(versions) * len(clients) * len(resources); n > maxRequests*4 {
		return nil, &Unknown{fmt.Sprintf("the kafka rules tell %d kinds of requests apart", n), rules[0].Origin}
	}
	var list []flow.Request
	for _, resource := range resources {
		for _, key := range keys {
			for _, version := range versions {
				for _, client := range clients {
					r := resource
					r.APIKey, r.APIVersion, r.ClientID = key, version, client
					list = append(list, &r)
				}
			}
		}
	}
	return list, nil
}

// kafkaNames are names that stand for all: a name is known by the exact ones that it is,
// and by the longest prefix that it has.
func kafkaNames(names []l7rules.KafkaName) []string {
	texts := []string{""}
	for _, n := range names {
		if !slices.Contains(texts, n.Value) {
			texts = append(texts, n.Value)
		}
	}
	list := slices.Clone(texts[1:])
	for _, t := range texts {
		// What begins with t and with nothing longer that is named.
		next := t + "x"
		for i := 0; slices.ContainsFunc(texts, func(o string) bool { return strings.HasPrefix(o, next) }); i++ {
			next = t + string("abcdefghijklmnopqrstuvwyz0123456789"[i%35]) + strings.Repeat("x", i/35)
		}
		if !slices.Contains(list, next) {
			list = append(list, next)
		}
	}
	return list
}

// kafkaClaim is what a claim says of requests to a broker.
type kafkaClaim struct {
	key      *int16 // nil for every one
	resource *l7rules.KafkaResource
	name     l7rules.KafkaName
}

// rule has everything in it that tells requests apart for the claim.
func (k *kafkaClaim) rule() *l7rules.KafkaRule {
	r := &l7rules.KafkaRule{Topic: k.name, Group: k.name, TransactionalID: k.name}
	if k.key != nil {
		r.APIKeys = []int16{*k.key}
	}
	return r
}

func (k *kafkaClaim) covers(r *l7rules.KafkaRequest) bool {
	if k.key != nil && *k.key != r.APIKey || k.resource != nil && *k.resource != r.Resource {
		return false
	}
	return k.name.Value == "" || r.Name == k.name.Value || k.name.Prefix && strings.HasPrefix(r.Name, k.name.Value)
}
