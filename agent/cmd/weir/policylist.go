package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weir-proxy/weir/agent"
)

func policyListCommand() *cobra.Command {
	return askingCommand("list", "List the policies that the agent has in force",
		`Lists the policies that the agent has in force, where each stands, and whom it selects.`,
		func(s *agent.Status) any { return s.Policy }, writePolicies)
}

func writePolicies(w io.Writer, s *agent.Status) error {
	var rows [][]string
	for _, d := range s.Policy.Documents {
		name := d.Name
		if d.Spec != "" {
			name += " " + d.Spec
		}
		selects := strings.Join(d.Endpoints, ",")
		if selects == "" {
			selects = "nobody: " + d.Selector
		}
		rows = append(rows, []string{name, fmt.Sprint(d.Egress), fmt.Sprint(d.Ingress), selects, d.Origin})
	}
	if err := table(w, "NAME\tEGRESS\tINGRESS\tSELECTS\tWHERE", rows); err != nil || s.Policy.Error == "" {
		return err
	}
	_, err := fmt.Fprintln(w, "\nThe files hold something else that is not in force: see weir status.")
	return err
}
