package identity

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Sources of labels that have a meaning of their own.
const (
	SourceK8s       = "k8s"       // what a label without a source gets
	SourceAny       = "any"       // in selectors only: whatever the source
	SourceReserved  = "reserved"  // entities; can be selected, never assigned
	SourceContainer = "container" // labels of a container image or engine
)

// Keys that carry what is not a label of the workload itself.
const (
	NamespaceKey      = "io.kubernetes.pod.namespace"
	ServiceAccountKey = "io.cilium.k8s.policy.serviceaccount"
)

// DefaultNamespace is the namespace of workloads and policies that name none.
const DefaultNamespace = "default"

// MaxLabelLen is the longest source, key or value, in bytes.
const MaxLabelLen = 317 // a Kubernetes key: 253 of prefix, a slash, 63 of name

// Label is one label of an endpoint.
type Label struct{ Source, Key, Value string }

// String is the form ParseLabel reads: source:key=value.
func (l Label) String() string { return l.Source + ":" + l.Key + "=" + l.Value }

// ParseLabel reads a label to assign, "key=value", "key", or "source:key=value". A
// label without a source gets k8s. The sources any and reserved are errors: the
// first is for selectors, the second is nobody's to give.
func ParseLabel(s string) (Label, error) {
	key, value, _ := strings.Cut(s, "=")
	l := Label{Source: SourceK8s, Key: key, Value: value}
	if source, rest, ok := strings.Cut(key, ":"); ok {
		l.Source, l.Key = source, rest
	}
	if err := l.check(); err != nil {
		return Label{}, fmt.Errorf("parse label %q: %w", s, err)
	}
	switch l.Source {
	case SourceReserved:
		return Label{}, fmt.Errorf("parse label %q: labels with source reserved cannot be assigned, only selected", s)
	case SourceAny:
		return Label{}, fmt.Errorf("parse label %q: source any is for selectors: write %s=%s", s, l.Key, l.Value)
	}
	return l, nil
}

func (l Label) check() error {
	if err := checkKey(l.Source, l.Key); err != nil {
		return err
	}
	return CheckValue(l.Value)
}

func checkKey(source, key string) error {
	switch {
	case source == "":
		return fmt.Errorf("empty source: write key=value or source:key=value")
	case key == "":
		return fmt.Errorf("empty key: write key=value or source:key=value")
	case len(source) > MaxLabelLen || len(key) > MaxLabelLen:
		return fmt.Errorf("longer than %d bytes", MaxLabelLen)
	}
	for i := range len(source) {
		if c := source[i]; !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '.') {
			return fmt.Errorf("source %q: only a-z, 0-9, '-' and '.'", source)
		}
	}
	for i := range len(key) {
		if c := key[i]; c <= ' ' || c > '~' || c == '=' || c == ',' || c == ':' && source != "cidr" {
			return fmt.Errorf("key %q: only printable ASCII without blanks, '=', ',' and ':'", key)
		}
	}
	return nil
}

// CheckValue reports whether v can be the value of a label: at most MaxLabelLen
// bytes of printable ASCII without a comma, which separates labels in a list.
func CheckValue(v string) error {
	if len(v) > MaxLabelLen {
		return fmt.Errorf("value longer than %d bytes", MaxLabelLen)
	}
	for i := range len(v) {
		if c := v[i]; c < ' ' || c > '~' || c == ',' {
			return fmt.Errorf("value %q: only printable ASCII without commas", v)
		}
	}
	return nil
}

func (l Label) compare(m Label) int {
	return cmp.Or(strings.Compare(l.Source, m.Source), strings.Compare(l.Key, m.Key), strings.Compare(l.Value, m.Value))
}

// Labels is an immutable sorted set with one value per source and key. The zero
// value is empty. Copies share the set.
type Labels struct{ set *labelSet }

type labelSet struct {
	labels []Label
	text   string // of all, so that a set can be a map key without work
}

// NewLabels makes a set. Two values for one source and key are an error.
func NewLabels(labels ...Label) (Labels, error) {
	ls := newLabels(slices.Clone(labels))
	for i := 1; i < ls.Len(); i++ {
		a, b := ls.set.labels[i-1], ls.set.labels[i]
		if a.Source == b.Source && a.Key == b.Key {
			return Labels{}, fmt.Errorf("label %s:%s has two values, %q and %q", a.Source, a.Key, a.Value, b.Value)
		}
	}
	return ls, nil
}

// ParseLabels makes a set of labels in ParseLabel's form.
func ParseLabels(texts ...string) (Labels, error) {
	labels := make([]Label, 0, len(texts))
	for _, t := range texts {
		l, err := ParseLabel(t)
		if err != nil {
			return Labels{}, err
		}
		labels = append(labels, l)
	}
	return NewLabels(labels...)
}

// Workload makes the labels of an endpoint from what its owner wrote, each in
// ParseLabel's form, and adds its namespace as k8s:io.kubernetes.pod.namespace. An
// empty namespace is the one among the labels, else DefaultNamespace.
func Workload(namespace string, texts ...string) (Labels, error) {
	ls, err := ParseLabels(texts...)
	if err != nil {
		return Labels{}, err
	}
	has, ok := ls.Get(SourceK8s, NamespaceKey)
	switch {
	case ok && namespace != "" && has != namespace:
		return Labels{}, fmt.Errorf("label %s:%s=%s contradicts namespace %s", SourceK8s, NamespaceKey, has, namespace)
	case ok:
		return ls, nil
	case namespace == "":
		namespace = DefaultNamespace
	}
	if err := CheckValue(namespace); err != nil {
		return Labels{}, fmt.Errorf("namespace: %w", err)
	}
	return NewLabels(append(ls.All(), Label{SourceK8s, NamespaceKey, namespace})...)
}

// newLabels takes ownership of labels.
func newLabels(labels []Label) Labels {
	if len(labels) == 0 {
		return Labels{}
	}
	slices.SortFunc(labels, Label.compare)
	labels = slices.Compact(labels)
	var b strings.Builder
	for i, l := range labels {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(l.String())
	}
	return Labels{&labelSet{labels, b.String()}}
}

// Len is the number of labels.
func (ls Labels) Len() int {
	if ls.set == nil {
		return 0
	}
	return len(ls.set.labels)
}

// All returns a copy of the labels, sorted by source, key and value.
func (ls Labels) All() []Label {
	if ls.set == nil {
		return nil
	}
	return slices.Clone(ls.set.labels)
}

// Get returns the value under a source and key. SourceAny takes the first of any
// source.
func (ls Labels) Get(source, key string) (value string, ok bool) {
	if ls.set == nil {
		return "", false
	}
	for _, l := range ls.set.labels {
		if l.Key == key && (source == SourceAny || l.Source == source) {
			return l.Value, true
		}
	}
	return "", false
}

// Namespace is the value of k8s:io.kubernetes.pod.namespace, "" without one.
func (ls Labels) Namespace() string {
	ns, _ := ls.Get(SourceK8s, NamespaceKey)
	return ns
}

// Equal reports whether two sets hold the same labels.
func (ls Labels) Equal(other Labels) bool { return ls.String() == other.String() }

// String is all labels as source:key=value, sorted, with commas between: the same
// for equal sets and different for others. It does not allocate.
func (ls Labels) String() string {
	if ls.set == nil {
		return ""
	}
	return ls.set.text
}
