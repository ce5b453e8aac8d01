package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-proxy/weir/agent"
	"github.com/weir-proxy/weir/agent/api"
	"github.com/weir-proxy/weir/agent/config"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// asking are the flags of a command that asks the agent.
type asking struct {
	socket string
	output string
}

func (a *asking) flags(cmd *cobra.Command, formats ...string) {
	cmd.Flags().StringVar(&a.socket, "socket", config.DefaultSocket, "`PATH` of the agent's socket")
	cmd.Flags().StringVarP(&a.output, "output", "o", formats[0], "`FORMAT`: "+strings.Join(formats, " or "))
	cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
}

func (a *asking) check(formats ...string) error {
	for _, f := range formats {
		if a.output == f {
			return nil
		}
	}
	return &exitError{exitUsage, fmt.Errorf("--output: %q is neither %s", a.output, strings.Join(formats, " nor "))}
}

// askingCommand is a command that prints a part of the agent's status: as text, or as
// the JSON of what pick returns.
func askingCommand(use, short, long string, pick func(*agent.Status) any, text func(io.Writer, *agent.Status) error) *cobra.Command {
	var a asking
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Long:  long,
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.check("text", "json"); err != nil {
				return err
			}
			s, err := api.NewClient(a.socket).Status(cmd.Context())
			if err != nil {
				return &exitError{exitNo, err}
			}
			if a.output == "json" {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(pick(s))
			}
			return text(cmd.OutOrStdout(), s)
		},
	}
	a.flags(cmd, "text", "json")
	return cmd
}

func statusCommand() *cobra.Command {
	return askingCommand("status", "Say how the agent of this machine is",
		`Says how the agent of this machine is: what it has in force, and what stands in the
way of what is in its files.

Exit status: 0 if an agent runs, 1 if none does, 2 for wrong usage.`,
		func(s *agent.Status) any { return s }, writeStatus)
}

func writeStatus(w io.Writer, s *agent.Status) error {
	var b strings.Builder
	fmt.Fprintf(&b, "agent:      pid %d, up %s", s.PID, age(time.Since(s.Started)))
	if s.Version != "" {
		fmt.Fprintf(&b, ", weir %s", clean(s.Version))
	}
	fmt.Fprintf(&b, "\npolicies:   %s, revision %d", count(len(s.Policy.Documents), "document", "documents"), s.Policy.Revision)
	if !s.Policy.Applied.IsZero() {
		fmt.Fprintf(&b, ", in force for %s", age(time.Since(s.Policy.Applied)))
	}
	states := map[agent.EndpointState]int{}
	open := 0
	for _, e := range s.Endpoints {
		states[e.State]++
		if (e.State == agent.Ready || e.State == agent.Unconfined) && !e.Egress.Enforced && !e.Ingress.Enforced {
			open++
		}
	}
	var parts []string
	for _, state := range []agent.EndpointState{agent.Ready, agent.Waiting, agent.Refused, agent.Unconfined} {
		if n := states[state]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, state))
		}
	}
	if len(parts) == 0 {
		parts = []string{"none"}
	}
	fmt.Fprintf(&b, "\nendpoints:  %s", strings.Join(parts, ", "))
	if open > 0 {
		fmt.Fprintf(&b, "; %d open, as no policy selects %s", open, map[bool]string{true: "it", false: "them"}[open == 1])
	}
	fmt.Fprintf(&b, "\nidentities: %d\n", len(s.Identities))
	if n := s.Counters.EventsLost; n > 0 {
		fmt.Fprintf(&b, "lost:       %d records of what the kernel decided\n", n)
	}
	for name, n := range s.Counters.MapsFull {
		fmt.Fprintf(&b, "full:       map %s: %d refused for want of room\n", clean(name), n)
	}
	if s.Policy.Error != "" {
		fmt.Fprintf(&b, "\nNOT IN FORCE for %s: what is in the files; what was before stays:\n", age(time.Since(s.Policy.Since)))
		for line := range strings.Lines(s.Policy.Error) {
			fmt.Fprintf(&b, "  %s\n", clean(strings.TrimSuffix(line, "\n")))
		}
	}
	for _, e := range s.Endpoints {
		if e.State == agent.Refused || e.State == agent.Waiting {
			fmt.Fprintf(&b, "%s %s: %s\n", clean(e.Name), e.State, clean(e.Reason))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// age is a duration as a person reads it.
func age(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Minute:
		return d.Truncate(time.Second).String()
	case d < 24*time.Hour:
		return strings.TrimSuffix(d.Truncate(time.Minute).String(), "0s")
	}
	return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}

// clean makes text of the agent safe for a terminal: some of it is chosen by workloads.
func clean(s string) string {
	if !strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c > '~' }) {
		return s
	}
	words := strings.Split(s, " ")
	for i, word := range words {
		words[i] = string(flow.AppendEscaped(nil, word))
	}
	return strings.Join(words, " ")
}

// table writes rows under a head.
func table(w io.Writer, head string, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, head)
	for _, row := range rows {
		for i := range row {
			row[i] = clean(row[i])
			if row[i] == "" {
				row[i] = "-"
			}
		}
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	return t.Flush()
}

// listCommand is a command whose only command lists something.
func listCommand(use, short string, list *cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return &exitError{exitUsage, fmt.Errorf("%s: a command is missing: list", cmd.CommandPath())}
		},
	}
	cmd.AddCommand(list)
	return cmd
}
