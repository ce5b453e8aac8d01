package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/weir-proxy/weir/agent/explain"
)

func policyDiffCommand() *cobra.Command {
	var configuration, output string
	var configOnly bool
	var each bool
	cmd := &cobra.Command{
		Use:   "diff OLD NEW",
		Short: "Say what a new set of policies lets through that the old one did not, and the reverse",
		Long: `Say what a new set of policies lets through that the old one did not (WIDENED), and what it
does not any more (NARROWED): for whom, on which ports, and with one flow or request that
shows it, confirmed by weir policy explain against both. OLD and NEW are files or directories.

Every case is looked at, not samples; what is not listed is the same. Differences that the
same rules make for many senders and receivers are one, shown for one pair; --each lists all.
What is taken for granted stands under weir policy prove --help.

Exit status: 0 if both mean the same, 1 if not, 2 for wrong usage or a policy that cannot be
read, 3 if no difference was found but something is UNKNOWN: too large, and the rule to blame
is named.`,
		Example: `  weir policy diff old.yaml new.yaml
  git worktree add /tmp/main main && weir policy diff /tmp/main/policies policies`,
		Args:                  usageArgs(cobra.ExactArgs(2)),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case configOnly && configuration == "":
				return &exitError{code: 2, err: errConfigOnly}
			case output != "text" && output != "json":
				return &exitError{code: 2, err: fmt.Errorf("--output: %q is neither text nor json", output)}
			}
			var sets [2]*explain.Set
			for i := range sets {
				policies, c, err := readPolicies(args[i:i+1], configuration)
				if err != nil {
					return err
				}
				sets[i] = explain.NewSet(policies, c)
				if configOnly {
					sets[i].OnlyKnown()
				}
			}
			found, err := explain.Diff(sets[0], sets[1], each)
			if err != nil {
				return answerless(err)
			}
			write := found.WriteText
			if output == "json" {
				write = found.WriteJSON
			}
			if err := write(cmd.OutOrStdout()); err != nil {
				return &exitError{code: 2, err: err}
			}
			switch {
			case len(found.Differences) > 0:
				return &exitError{code: exitNo, err: nil}
			case len(found.Unknown) > 0:
				return &exitError{code: exitUnknown, err: nil}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&configuration, "config", "", "configuration `FILE` of the agent, for its workloads, addresses and namespaces")
	f.BoolVar(&each, "each", false, "list every pair of sender and receiver")
	f.BoolVar(&configOnly, "config-only", false, "look at no endpoints but the workloads of --config")
	f.StringVarP(&output, "output", "o", "text", "`FORMAT` of the answer: text or json")
	return cmd
}
