package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/weir-proxy/weir/agent/explain"
	"github.com/weir-proxy/weir/l7rules/cnp"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// policyCommand is weir policy: what a policy says, without a kernel and without root.
func policyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Check and explain policy files, on any system, without root",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			return &exitError{code: 2, err: fmt.Errorf("weir policy: a command is missing: validate, explain or list")}
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &exitError{code: 2, err: err} })
	cmd.AddCommand(policyValidateCommand(), policyExplainCommand(), policyListCommand())
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
	return &cobra.Command{
		Use:   "validate FILE...",
		Short: "Read policy files and say everything that is wrong with them",
		Long: `Read policy files, and directories of them, and say everything that is wrong with
them: file:line:column, the field, why, and what to write instead. Warnings are about
what means what it says and is perhaps not meant.

Exit status: 0 if every file can be loaded, 1 if one cannot, 2 for wrong usage.`,
		Example:               "  weir policy validate policy.yaml",
		Args:                  usageArgs(cobra.MinimumNArgs(1)),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			files := explain.Load(args)
			_, warnings, err := explain.Join(files)
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
}

func policyExplainCommand() *cobra.Command {
	var q explain.Query
	var files []string
	var output string
	cmd := &cobra.Command{
		Use:   "explain --policy FILE --from WHO --to WHO:PORT",
		Short: "Say whether policies let a flow or a request through, and why",
		Long: `Say whether policies let a flow or a request through: FORWARDED or DROPPED on the first
line, then which rule decided, or which came nearest and what differed. The sender's
egress and the receiver's ingress must both let it through.

WHO is labels (app=a,k8s:tier=b), an entity (host, world) or an address; --to self is the
sender itself. A loopback address is entity host. Labels without
k8s:io.kubernetes.pod.namespace are in namespace default.

Exit status: 0 if it is let through, 1 if not, 2 for wrong usage or a policy that cannot be
read.`,
		Example: `  weir policy explain --policy policy.yaml --from app=client --to host:8080 --http 'GET /public'
  weir policy explain --policy policy.yaml --from app=client --to 192.0.2.7:443 -o json`,
		Args:                  usageArgs(cobra.NoArgs),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case output != "text" && output != "json":
				return &exitError{code: 2, err: fmt.Errorf("--output: %q is neither text nor json", output)}
			case len(files) == 0:
				return &exitError{code: 2, err: fmt.Errorf("--policy FILE is missing")}
			}
			policies, _, err := explain.Join(explain.Load(files))
			if err != nil {
				return &exitError{code: 2, err: err}
			}
			answer, err := explain.Ask(policies, q)
			if err != nil {
				return &exitError{code: 2, err: err}
			}
			write := answer.WriteText
			if output == "json" {
				write = answer.WriteJSON
			}
			if err := write(cmd.OutOrStdout()); err != nil {
				return &exitError{code: 2, err: err}
			}
			if answer.Verdict != flow.Forwarded {
				return &exitError{code: 1, err: nil}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&files, "policy", nil, "policy `FILE` or directory; may be repeated")
	f.StringVar(&q.From, "from", "", "`WHO` connects")
	f.StringVar(&q.To, "to", "", "`WHO:PORT` is connected to")
	f.StringVar(&q.Protocol, "protocol", "tcp", "tcp, udp or sctp")
	f.StringVar(&q.HTTP, "http", "", "the `REQUEST` 'METHOD PATH' on the connection")
	f.StringVar(&q.Host, "host", "", "the request's `HOST`, port included; without it what a client would send")
	f.StringArrayVar(&q.Headers, "header", nil, "a `HEADER` 'Name: value' of the request; may be repeated")
	f.StringVarP(&output, "output", "o", "text", "`FORMAT` of the answer: text or json")
	return cmd
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
