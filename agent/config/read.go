package config

import (
	"net/netip"
	"path"
	"path/filepath"
	"strings"

	"github.com/weir-proxy/weir/agent/records"
	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules/strictyaml"
)

// Short names for what every function here works with.
type (
	node   = strictyaml.Node
	object = strictyaml.Object
)

var (
	join  = strictyaml.Join
	index = strictyaml.Index
	quote = strictyaml.Quote
)

type reader struct {
	strictyaml.Reader
	dir    string
	names  map[string]strictyaml.Pos // of workloads and addresses
	places map[string]place          // where workloads are
	cidrs  map[netip.Prefix]strictyaml.Pos
}

type place struct {
	workload string
	line     int
}

func (r *reader) config(n *node, c *Config) {
	o, ok := r.object(n, "", "policies", "namespaces", "workloads", "addresses", "discover", "log", "socket")
	if !ok {
		return
	}
	seen := map[string]int{}
	for i, item := range r.list(o, "", "policies") {
		at := index("policies", i)
		p, ok := r.path(item, at)
		if !ok {
			continue
		}
		if line, again := seen[p]; again {
			r.Errorf(item.Pos, at, "%s is also at line %d", p, line)
		}
		seen[p] = item.Line
		c.Policies = append(c.Policies, p)
	}
	if n := o.Get("namespaces"); n != nil {
		c.Namespaces = r.namespaces(n)
	}
	for i, item := range r.list(o, "", "workloads") {
		c.Workloads = append(c.Workloads, r.workload(item, index("workloads", i)))
	}
	for i, item := range r.list(o, "", "addresses") {
		c.Addresses = append(c.Addresses, r.address(item, index("addresses", i)))
	}
	if n := o.Get("discover"); n != nil {
		c.Docker = r.discover(n)
	}
	if n := o.Get("log"); n != nil {
		r.log(n, &c.Log)
	}
	if n := o.Get("socket"); n != nil {
		// sun_path of struct sockaddr_un has 108 bytes, its final zero included.
		const longest = 107
		if p, ok := r.path(n, "socket"); ok {
			c.Socket = p
			if len(p) > longest {
				r.Errorf(n.Pos, "socket", "%d bytes: the path of a socket has at most %d", len(p), longest)
			}
		}
	}
}

// object is Reader.Object where a field without a value is an error: it looks as if
// it meant something.
func (r *reader) object(n *node, path string, known ...string) (*object, bool) {
	o, ok := r.Object(n, path, known...)
	if ok {
		for name, f := range o.Fields {
			if f.Kind == strictyaml.Null {
				r.Errorf(f.Pos, join(path, name), "has no value: give it one or leave it out")
			}
		}
	}
	return o, ok
}

func (r *reader) list(o *object, path, name string) []*node {
	items, _ := r.List(o.Get(name), join(path, name))
	return items
}

// path reads a path of a file. A relative one is below the configuration's directory.
func (r *reader) path(n *node, at string) (string, bool) {
	s, ok := r.String(n, at)
	switch {
	case !ok:
		return "", false
	case s == "":
		r.Errorf(n.Pos, at, "empty: write a path")
		return "", false
	case strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c == 0x7f }):
		r.Errorf(n.Pos, at, "%s is no path", quote(s))
		return "", false
	}
	if !filepath.IsAbs(s) && !path.IsAbs(s) {
		s = filepath.Join(r.dir, s)
	}
	return filepath.Clean(s), true
}

func (r *reader) namespaces(n *node) map[string][]identity.Label {
	if n.Kind != strictyaml.Map {
		r.Errorf(n.Pos, "namespaces", "must be a mapping of names to labels, is %s", n.Kind)
		return nil
	}
	all, seen := map[string][]identity.Label{}, map[string]int{}
	for _, e := range n.Entries {
		name, ok := r.String(e.Key, "namespaces")
		if !ok {
			continue
		}
		at := join("namespaces", name)
		if line, again := seen[name]; again {
			r.Errorf(e.Key.Pos, at, "duplicate key, first at line %d", line)
			continue
		}
		seen[name] = e.Key.Line
		if !isName(name, 63, false) {
			r.Errorf(e.Key.Pos, at, "%s is no namespace: lower-case letters, digits and '-', at most 63", quote(name))
			continue
		}
		all[name] = r.namespaceLabels(e.Value, at, name)
	}
	return all
}

// namespaceNameKey is the label that every namespace has of its own accord, with its name.
// Selectors that name it look at the name.
const namespaceNameKey = "kubernetes.io/metadata.name"

func (r *reader) namespaceLabels(n *node, at, name string) []identity.Label {
	labels := r.labels(n, at, "team: red")
	for i, l := range labels {
		if l.Source != identity.SourceK8s {
			r.Errorf(n.Pos, at, "%s: a namespace's labels have no source: write %s: %s", l, l.Key, l.Value)
			continue
		}
		if l.Key == namespaceNameKey && l.Value != name {
			r.Errorf(n.Pos, at, "%s is %s, as for every namespace its name: leave it out", l.Key, name)
		}
		l.Key = NamespaceLabelsPrefix + l.Key
		if _, err := identity.ParseLabel(l.String()); err != nil {
			r.Errorf(n.Pos, at, "%v", err)
		}
		labels[i] = l
	}
	if _, err := identity.NewLabels(labels...); err != nil {
		r.Errorf(n.Pos, at, "%v", err)
	}
	return labels
}

// labels reads a mapping of labels to assign.
func (r *reader) labels(n *node, at, example string) []identity.Label {
	if n.Kind != strictyaml.Map {
		r.Errorf(n.Pos, at, "must be a mapping such as {%s}, is %s", example, n.Kind)
		return nil
	}
	var labels []identity.Label
	seen := map[string]int{}
	for _, e := range n.Entries {
		key, ok := r.String(e.Key, at)
		if !ok {
			continue
		}
		field := join(at, key)
		if line, again := seen[key]; again {
			r.Errorf(e.Key.Pos, field, "duplicate key, first at line %d", line)
			continue
		}
		seen[key] = e.Key.Line
		value, ok := r.String(e.Value, field)
		if !ok {
			continue
		}
		if strings.Contains(key, "=") {
			r.Errorf(e.Key.Pos, field, "%s: no key holds '='", quote(key))
			continue
		}
		l, err := identity.ParseLabel(key + "=" + value)
		if err != nil {
			r.Errorf(e.Key.Pos, field, "%v", err)
			continue
		}
		labels = append(labels, l)
	}
	return labels
}

func (r *reader) discover(n *node) *Docker {
	o, ok := r.object(n, "discover", "docker")
	if !ok {
		return nil
	}
	d := &Docker{Socket: DefaultDockerSocket}
	n = o.Get("docker")
	if n == nil {
		if o.Fields["docker"] == nil {
			r.Errorf(o.Pos, "discover", "discovers nothing: write discover: {docker: {}}, or leave it out")
		}
		return nil
	}
	if o, ok = r.object(n, "discover.docker", "socket", "labels", "unconfined"); !ok {
		return nil
	}
	if n := o.Get("socket"); n != nil {
		if p, ok := r.path(n, "discover.docker.socket"); ok {
			d.Socket = p
		}
	}
	if n := o.Get("labels"); n != nil {
		d.Labels = r.selector(n, "discover.docker.labels")
	}
	for i, item := range r.list(o, "discover.docker", "unconfined") {
		if s, ok := r.String(item, index("discover.docker.unconfined", i)); ok {
			if s == "" || strings.ContainsAny(s, " ") {
				r.Errorf(item.Pos, index("discover.docker.unconfined", i), "%s is no name of a container", quote(s))
			}
			d.Unconfined = append(d.Unconfined, s)
		}
	}
	return d
}

// selector reads the labels of containers, which are Docker's and not ours: any key,
// any value.
func (r *reader) selector(n *node, at string) map[string]string {
	if n.Kind != strictyaml.Map {
		r.Errorf(n.Pos, at, "must be a mapping such as {com.example.policed: \"true\"}, is %s", n.Kind)
		return nil
	}
	all := map[string]string{}
	for _, e := range n.Entries {
		key, ok := r.String(e.Key, at)
		if !ok {
			continue
		}
		if _, again := all[key]; again {
			r.Errorf(e.Key.Pos, join(at, key), "duplicate key")
		}
		if key == "" || strings.Contains(key, "=") {
			r.Errorf(e.Key.Pos, join(at, key), "%s is no key of a label", quote(key))
		}
		all[key], _ = r.String(e.Value, join(at, key))
	}
	return all
}

func (r *reader) log(n *node, l *Log) {
	o, ok := r.object(n, "log", "file", "format")
	if !ok {
		return
	}
	if n := o.Get("file"); n != nil {
		if p, ok := r.path(n, "log.file"); ok {
			l.File = p
		}
	}
	if n := o.Get("format"); n != nil {
		s, ok := r.String(n, "log.format")
		l.Format = records.Format(s)
		if ok && l.Format != records.Compact && l.Format != records.JSON {
			r.Errorf(n.Pos, "log.format", "unknown format %s: compact or json", quote(s))
		}
	}
}
