package explain

import (
	"cmp"
	"slices"
	"strings"

	"github.com/weir-proxy/weir/agent/config"
	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/cnp"
	"github.com/weir-proxy/weir/l7rules/prove"
)

// Review warns of what policies say together and perhaps do not mean. With a configuration
// it also finds selectors that select nobody of it, unless containers are to be discovered:
// then nobody can know.
func Review(policies []*l7rules.Policy, c *config.Config) []cnp.Warning {
	known := knownOf(c, false)
	if c != nil && c.Docker != nil {
		known.Workloads = nil
	}
	var warnings []cnp.Warning
	for _, f := range prove.Review(policies, known) {
		warnings = append(warnings, cnp.Warning{Origin: f.Origin, Path: f.Path, Text: f.Text})
	}
	return warnings
}

// SortWarnings puts warnings into the order of the files.
func SortWarnings(warnings []cnp.Warning) {
	slices.SortStableFunc(warnings, func(a, b cnp.Warning) int {
		return cmp.Or(strings.Compare(a.Origin.File, b.Origin.File), cmp.Compare(a.Origin.Line, b.Origin.Line), cmp.Compare(a.Origin.Column, b.Origin.Column))
	})
}
