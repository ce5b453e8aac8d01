package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/weir-proxy/weir/agent/config"
	"github.com/weir-proxy/weir/agent/explain"
	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/cnp"
)

// policyCommand is weir policy: what a policy says, without a kernel and without root.
func policyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Check, explain, prove and compare policy files, on any system, without root",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			return &exitError{code: 2, err: fmt.Errorf("weir policy: a command is missing: validate, explain, prove, diff or list")}
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &exitError{code: 2, err: err} })
	cmd.AddCommand(policyValidateCommand(), policyExplainCommand(), policyProveCommand(), policyDiffCommand(), policyListCommand())
	return cmd
}

// usageArgs makes what is wrong with the arguments an error of usage.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return &exitError{code: 2, err: fmt.Errorf("%s: %w", cmd.CommandPath(), err)}
		}
		return nil
	}
}

func policyValidateCommand() *cobra.Command {
	var configuration string
	cmd := &cobra.Command{
		Use:   "validate FILE...",
		Short: "Read policy files and say everything that is wrong with them",
		Long: `Read policy files, and directories of them, and say everything that is wrong with
them: file:line:column, the field, why, and what to write instead.

Warnings are about what means what it says and is perhaps not meant: paths and names that
match less, or more, than they seem to; rules that change nothing because others shadow
them, or because nothing that they deny is allowed; with --config also selectors that select
nobody of that configuration.

Exit status: 0 if every file can be loaded, 1 if one cannot, 2 for wrong usage.`,
		Example: `  weir policy validate policy.yaml
  weir policy validate --config agent.yaml policies`,
		Args:                  usageArgs(cobra.MinimumNArgs(1)),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			var c *config.Config
			if configuration != "" {
				var err error
				if c, err = config.Load(configuration); err != nil {
					return &exitError{code: 2, err: err}
				}
			}
			files := explain.Load(args)
			policies, warnings, err := explain.Join(files)
			if err == nil {
				warnings = append(warnings, explain.Review(policies, c)...)
			}
			explain.SortWarnings(warnings)
			warn(cmd, warnings)
			for _, f := range files {
				if f.Err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "%s: ok, %s\n", f.Name, count(len(f.Policies), "policy", "policies"))
				}
			}
			if err != nil {
				return &exitError{code: 1, err: err}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&configuration, "config", "", "configuration `FILE` of the agent, for its workloads, addresses and namespaces")
	return cmd
}

// readPolicies reads the files that a command names and, unless its name is empty, a
// configuration. An error is one of usage.
func readPolicies(files []string, configuration string) ([]*l7rules.Policy, *config.Config, error) {
	if len(files) == 0 {
		return nil, nil, &exitError{code: 2, err: fmt.Errorf("--policy FILE is missing")}
	}
	policies, _, err := explain.Join(explain.Load(files))
	if err != nil {
		return nil, nil, &exitError{code: 2, err: err}
	}
	if configuration == "" {
		return policies, nil, nil
	}
	c, err := config.Load(configuration)
	if err != nil {
		return nil, nil, &exitError{code: 2, err: err}
	}
	return policies, c, nil
}

func warn(cmd *cobra.Command, warnings []cnp.Warning) {
	for _, w := range warnings {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", w)
	}
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
