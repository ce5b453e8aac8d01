// Package config reads the configuration of `weir agent`: a YAML file that says which
// policies are in force, which workloads they are about, and what else has a name.
// Nothing in a file is ignored, and everything wrong with it is reported at once.
package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/weir-proxy/weir/agent/records"
	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules/strictyaml"
)

// MaxFileLen is the size of the largest configuration, in bytes: room for several
// thousand workloads.
const MaxFileLen = 1 << 20

// Defaults of what a configuration may leave out.
const (
	DefaultSocket       = "/run/weir/agent.sock"
	DefaultDockerSocket = "/var/run/docker.sock"
)

// Config is a configuration file.
type Config struct {
	// Policies are files and directories. A directory stands for the .yaml and .yml
	// files in it.
	Policies []string
	// Namespaces are the labels of namespaces, by name, in the form in which everything
	// in them carries them. Workloads and Addresses have theirs already.
	Namespaces map[string][]identity.Label
	Workloads  []Workload
	Addresses  []Address
	Docker     *Docker // nil: containers are not looked for
	Log        Log
	Socket     string // of the commands that ask the agent
}

// NamespaceLabelsPrefix is what the key of a namespace's label begins with where a
// workload carries it, as in Cilium.
const NamespaceLabelsPrefix = "io.cilium.k8s.namespace.labels."

// InNamespace adds the labels of its namespace to a workload's. A workload that has one
// of them keeps its own.
func (c *Config) InNamespace(ls identity.Labels) identity.Labels {
	all := ls.All()
	for _, l := range c.Namespaces[ls.Namespace()] {
		if _, has := ls.Get(l.Source, l.Key); !has {
			all = append(all, l)
		}
	}
	with, err := identity.NewLabels(all...)
	if err != nil {
		return ls // cannot be: no key is there twice
	}
	return with
}

// Workload is a set of processes under policy. Exactly one of Netns, PID and Cgroup is
// set.
type Workload struct {
	Name       string          // "namespace/name", unique
	Labels     identity.Labels // its namespace included
	Netns      string          // path of its network namespace
	PID        int             // a process in its network namespace
	Cgroup     string          // path below the cgroup v2 root, such as /system.slice/orders.service
	Unconfined bool            // may hold capabilities that let it change packets after they were judged
}

// Address gives labels to addresses that are no workload of this machine. They are
// destinations only: nobody who connects is known by them.
type Address struct {
	Name   string          // "namespace/name", unique
	Labels identity.Labels // its namespace included
	CIDRs  []netip.Prefix  // at least one
}

// Docker says where containers come from.
type Docker struct {
	Socket string
	Labels map[string]string // that a container must have to be a workload; empty: every one
	// Unconfined are names of containers that may hold capabilities that let them change
	// packets after they were judged.
	Unconfined []string
}

// Log says where records go.
type Log struct {
	File   string // "" for standard error
	Format records.Format
}

// Load reads a configuration file. Relative paths in it are below its own directory.
func Load(name string) (*Config, error) {
	f, err := os.Open(name)
	if err != nil {
		var pe *fs.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return nil, fmt.Errorf("read configuration %s: %w", name, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxFileLen+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration %s: %w", name, err)
	}
	dir, err := filepath.Abs(filepath.Dir(name))
	if err != nil {
		return nil, fmt.Errorf("read configuration %s: %w", name, err)
	}
	return Parse(name, dir, data)
}

// Parse reads a configuration. The filename is for messages only; dir is what relative
// paths are relative to. The error, of type strictyaml.Errors, holds everything wrong.
func Parse(filename, dir string, data []byte) (*Config, error) {
	r := &reader{
		Reader: strictyaml.Reader{File: filename, MaxLen: MaxFileLen, Hints: hints},
		dir:    dir,
		names:  map[string]strictyaml.Pos{},
		places: map[string]place{},
		cidrs:  map[netip.Prefix]strictyaml.Pos{},
	}
	c := &Config{Socket: DefaultSocket, Log: Log{Format: records.Compact}}
	docs := r.Documents(data)
	switch {
	case r.Failed() > 0:
	case len(docs) == 0:
		r.Errorf(strictyaml.Pos{}, "", "nothing in this file: write at least policies and workloads")
	case len(docs) > 1:
		r.Errorf(docs[1].Pos, "", "a second document: a configuration is one")
	default:
		r.config(docs[0], c)
		for i := range c.Workloads {
			c.Workloads[i].Labels = c.InNamespace(c.Workloads[i].Labels)
		}
		for i := range c.Addresses {
			c.Addresses[i].Labels = c.InNamespace(c.Addresses[i].Labels)
		}
	}
	if err := r.Err(); err != nil {
		return nil, err
	}
	return c, nil
}

// hints are fields that people expect.
var hints = map[string]string{
	"policy":         "unknown field: write policies: [FILE or directory, ...]",
	"apiVersion":     "unknown field: this is a configuration, which has none; policies go into files of their own, named in policies",
	"kind":           "unknown field: this is a configuration, which has none; policies go into files of their own, named in policies",
	"metadata":       "unknown field: name and namespace stand directly in the workload",
	"spec":           "unknown field: policies go into files of their own, named in policies",
	"containers":     "unknown field: write discover: {docker: {}}",
	"docker":         "unknown field: write discover: {docker: {}}",
	"kubernetes":     "there is no discovery of Kubernetes: docker is the only one",
	"interval":       "unknown field: changes are seen at once",
	"watch":          "unknown field: policies are always watched",
	"ip":             "unknown field: write cidrs: [10.0.0.1/32]",
	"cidr":           "unknown field: write cidrs: [10.0.0.1/32]",
	"container":      "unknown field: write discover: {docker: {}}, or pid with a process of it",
	"podSelector":    "unknown field: write labels",
	"matchLabels":    "unknown field: the labels stand directly in labels",
	"selector":       "unknown field: write labels",
	"service":        "unknown field: write cgroup: /system.slice/NAME.service",
	"unit":           "unknown field: write cgroup: /system.slice/NAME.service",
	"privileged":     "unknown field: write unconfined: true",
	"output":         "unknown field: write format: compact or json",
	"level":          "unknown field: every decision is recorded",
	"serviceaccount": "unknown field: did you mean serviceAccount?",
}
