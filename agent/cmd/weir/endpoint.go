package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weir-proxy/weir/agent"
)

func endpointCommand() *cobra.Command {
	return listCommand("endpoint", "List the workloads of the agent", askingCommand("list", "List the workloads of the agent",
		`Lists the workloads of the agent: what each is to policies, whether it is under them,
and in which directions they close it for what they do not name.`,
		func(s *agent.Status) any { return s.Endpoints }, writeEndpoints))
}

func writeEndpoints(w io.Writer, s *agent.Status) error {
	var rows [][]string
	for _, e := range s.Endpoints {
		id, identity := "", ""
		if e.ID != 0 {
			id, identity = fmt.Sprint(e.ID), fmt.Sprint(e.Identity)
		}
		state := string(e.State)
		if e.Reason != "" {
			state += ": " + e.Reason
		}
		rows = append(rows, []string{e.Name, id, identity, side(e, e.Egress), side(e, e.Ingress), strings.Join(shortLabels(e.Labels), ","), e.Place, state})
	}
	return table(w, "NAME\tID\tIDENTITY\tEGRESS\tINGRESS\tLABELS\tPLACE\tSTATE", rows)
}

// side says what happens in a direction to what no rule names.
func side(e agent.EndpointStatus, s agent.SideStatus) string {
	switch {
	case e.State == agent.Waiting || e.State == agent.Refused:
		return ""
	case s.Enforced:
		return "enforced"
	}
	return "open"
}

// shortLabels leaves the source out where it is the usual one.
func shortLabels(labels []string) []string {
	short := make([]string, len(labels))
	for i, l := range labels {
		short[i] = strings.TrimSuffix(strings.TrimPrefix(l, "k8s:"), "=")
	}
	return short
}
