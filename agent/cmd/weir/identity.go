package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weir-proxy/weir/agent"
)

func identityCommand() *cobra.Command {
	return listCommand("identity", "List the identities that the kernel knows", askingCommand("list", "List the identities that the kernel knows",
		`Lists the numbers by which the kernel knows who talks to whom, as records show them:
workloads and declared addresses by their labels, entities, and the prefixes that
policies name.`,
		func(s *agent.Status) any { return s.Identities }, writeIdentities))
}

func writeIdentities(w io.Writer, s *agent.Status) error {
	var rows [][]string
	for _, i := range s.Identities {
		rows = append(rows, []string{fmt.Sprint(i.ID), i.Kind, strings.Join(shortLabels(i.Labels), ","), strings.Join(slices.Concat(i.Endpoints, i.CIDRs), ",")})
	}
	return table(w, "ID\tKIND\tLABELS\tWHO", rows)
}
