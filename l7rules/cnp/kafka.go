package cnp

import (
	"math"
	"strconv"
	"strings"

	"github.com/weir-proxy/weir/l7rules"
)

// maxKafkaName is the longest name of a topic, group or transactional id, in bytes. Topics
// have had at most 249 since Kafka 0.10, and Cilium allows 255; the others are only bounded
// by what a string holds (INT16).
const (
	maxKafkaTopic = 255
	maxKafkaName  = math.MaxInt16
)

// kafkaRule reads one element of kafka.
func (r *reader) kafkaRule(n *node, path string, deny bool, d *document) l7rules.KafkaRule {
	k := l7rules.KafkaRule{Origin: r.Origin(n.Pos)}
	known := []string{"role", "apiKey", "apiVersion", "clientID", "topic"}
	if d.ours() {
		known = append(known, "topicPrefix", "group", "groupPrefix", "transactionalID")
	}
	o, ok := r.Object(n, path, known...)
	if !ok {
		return k
	}
	if f, s := r.kafkaString(o, path, "role"); f != nil {
		switch role := l7rules.KafkaRole(strings.ToLower(s)); role {
		case l7rules.KafkaProduce, l7rules.KafkaConsume:
			k.Role = role
		default:
			r.Errorf(f.Pos, join(path, "role"), "unknown role %s: produce or consume", quote(s))
		}
	}
	if f, s := r.kafkaString(o, path, "apiKey"); f != nil {
		at := join(path, "apiKey")
		key, ok := l7rules.KafkaAPIKey(s)
		switch near := nearest(s, l7rules.KafkaAPINames()); {
		case o.Get("role") != nil:
			r.Errorf(f.Pos, at, "role says which requests already: leave out one of the two")
		case !ok && near != "":
			r.Errorf(f.Pos, at, "unknown request %s: did you mean %s?", quote(s), near)
		case !ok:
			r.Errorf(f.Pos, at, "unknown request %s: a name such as produce, fetch, metadata, createtopics", quote(s))
		case key > l7rules.MaxCiliumKafkaKey && !d.ours():
			r.Errorf(f.Pos, at, "%s has no name in %s: %s", s, d.version, onlyOurs)
		default:
			k.APIKeys = []int16{key}
		}
	}
	if f, s := r.kafkaString(o, path, "apiVersion"); f != nil {
		v, err := strconv.ParseUint(s, 10, 15)
		if err != nil || strconv.FormatUint(v, 10) != s {
			r.Errorf(f.Pos, join(path, "apiVersion"), "%s is no version: a number from \"0\" on", quote(s))
		} else {
			version := int16(v)
			k.APIVersion = &version
		}
	}
	if f, s := r.kafkaString(o, path, "clientID"); f != nil {
		k.ClientID = s
	}
	k.Topic = r.kafkaName(o, path, "topic", "topicPrefix")
	k.Group = r.kafkaName(o, path, "group", "groupPrefix")
	k.TransactionalID = r.kafkaName(o, path, "transactionalID", "")
	r.checkKafka(o, path, &k, deny)
	return k
}

// checkKafka finds fields that say nothing together.
func (r *reader) checkKafka(o *object, path string, k *l7rules.KafkaRule, deny bool) {
	none := l7rules.KafkaName{}
	named := 0
	for _, n := range []l7rules.KafkaName{k.Topic, k.Group, k.TransactionalID} {
		if n != none {
			named++
		}
	}
	switch {
	case k.Role == l7rules.KafkaProduce && k.Group != none:
		r.Errorf(o.Pos, path, "a producer has no group: leave it out, or write role: consume")
	case k.Role == l7rules.KafkaConsume && k.TransactionalID != none:
		r.Errorf(o.Pos, path, "a consumer has no transactional id: leave it out, or write role: produce")
	case deny && named > 1:
		r.Errorf(o.Pos, path, "each topic, group and transactional id of a request is judged alone: write a deny rule for each")
	}
}

// kafkaString reads a field that is a string and not empty; nil if it is not there.
func (r *reader) kafkaString(o *object, path, name string) (*node, string) {
	n := o.Get(name)
	if n == nil {
		return nil, ""
	}
	s, ok := r.String(n, join(path, name))
	switch {
	case !ok:
		return nil, ""
	case s == "":
		r.Errorf(n.Pos, join(path, name), "empty: leave it out for any")
		return nil, ""
	case len(s) > maxKafkaName:
		r.Errorf(n.Pos, join(path, name), "longer than %d bytes", maxKafkaName)
		return nil, ""
	}
	return n, s
}

func (r *reader) kafkaName(o *object, path, exact, prefix string) l7rules.KafkaName {
	n, s := r.kafkaString(o, path, exact)
	p, start := r.kafkaString(o, path, prefix)
	for _, f := range []struct {
		n       *node
		name, s string
	}{{n, exact, s}, {p, prefix, start}} {
		if f.n == nil || !strings.HasPrefix(f.name, "topic") {
			continue
		}
		if bad := strings.Trim(f.s, topicBytes); bad != "" || len(f.s) > maxKafkaTopic {
			hint := ""
			if strings.HasSuffix(f.s, "*") {
				hint = "; write " + exact + "Prefix for all that begin alike, in kind " + kindOurs + " of " + versionOurs
			}
			r.Errorf(f.n.Pos, join(path, f.name), "%s is no topic: letters, digits, '.', '_' and '-', at most %d%s", quote(f.s), maxKafkaTopic, hint)
		}
	}
	switch {
	case n != nil && p != nil:
		r.Errorf(p.Pos, join(path, prefix), "one of %s and %s: write two rules", exact, prefix)
	case n != nil:
		return l7rules.KafkaName{Value: s}
	case p != nil:
		return l7rules.KafkaName{Value: start, Prefix: true}
	}
	return l7rules.KafkaName{}
}

const topicBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
