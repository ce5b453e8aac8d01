package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/weir-proxy/weir/agent/explain"
)

// exitUnknown is the status of a question that was not answered, because that would take
// too much.
const exitUnknown = 3

var errConfigOnly = errors.New("--config-only: whose workloads? --config FILE is missing")

func policyProveCommand() *cobra.Command {
	var files, never, only []string
	var configuration, output string
	var configOnly bool
	cmd := &cobra.Command{
		Use:   "prove --policy FILE --never CLAIM",
		Short: "Prove what policies never let through, or show a request that gets through",
		Long: `Prove that policies never let something through, or nothing but something, or show a
flow or request that gets through all the same. Every case is looked at, not samples: every
combination of labels that selectors can tell apart, every range of ports, and every class of
requests that the patterns of the rules can tell apart. What is printed as getting through
was confirmed by weir policy explain.

A CLAIM is  [from WHO] [to WHO] [tcp|udp|sctp[/PORT[-PORT]]] [REQUESTS], where REQUESTS is one of
  http METHOD PATH [host HOST] [header "NAME: VALUE"]     regular expressions for the whole, as in a policy
  grpc SERVICE/METHOD                                     * is any
  dns NAME, sni NAME                                      *.x and **.x as in a policy
  kafka API [RESOURCE]                                    * is any; topic:NAME, group:NAME, transaction:NAME, NAME*, cluster

--never CLAIM: nothing of this gets through. --only CLAIM: nothing else does. "from A to B"
says that A reaches nothing but B, "to B from A" that nobody but A reaches B; several for the
same A, or B, go together. WHO is labels that an endpoint has or has not (app=a,tier!=b,!c),
whatever its other labels; an entity (host, world, cluster, all); an address or prefix; a
name of DNS as a destination; or a workload of --config. Labels are about namespace default unless k8s:io.kubernetes.pod.namespace
is one of them: that alone, without a value, is every namespace. Without from, or to, it is
anybody. Words
with blanks stand in double quotes.

Endpoints are all that could be, with any labels, one of a key; with --config also its
workloads as they are, and with --config-only nobody else. What an
endpoint says to itself is not judged, and not looked at. A connection to a port with request
rules counts as getting through where some request does.

Exit status: 0 if everything is proved, 1 if something gets through, 2 for wrong usage or a
policy that cannot be read, 3 if nothing was found but something is UNKNOWN: too large, and
the rule to blame is named.`,
		Example: `  weir policy prove --policy policies --never 'from app=ci to app=db http DELETE /.*'
  weir policy prove --policy policies --never 'from world to app=db'
  weir policy prove --policy policies --only 'to app=db from app=api tcp/5432' --only 'to app=db from app=ci http GET /health'`,
		Args:                  usageArgs(cobra.NoArgs),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case configOnly && configuration == "":
				return &exitError{code: 2, err: errConfigOnly}
			case output != "text" && output != "json":
				return &exitError{code: 2, err: fmt.Errorf("--output: %q is neither text nor json", output)}
			case len(never)+len(only) == 0:
				return &exitError{code: 2, err: fmt.Errorf("a claim is missing: --never 'from WHO to WHO' or --only 'from WHO to WHO'")}
			}
			policies, c, err := readPolicies(files, configuration)
			if err != nil {
				return err
			}
			set := explain.NewSet(policies, c)
			if configOnly {
				set.OnlyKnown()
			}
			proofs, err := set.Prove(never, only)
			if err != nil {
				return answerless(err)
			}
			return writeProofs(cmd, proofs, output)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&files, "policy", nil, "policy `FILE` or directory; may be repeated")
	f.StringVar(&configuration, "config", "", "configuration `FILE` of the agent, for its workloads, addresses and namespaces")
	f.StringArrayVar(&never, "never", nil, "`CLAIM` that nothing of this gets through; may be repeated")
	f.StringArrayVar(&only, "only", nil, "`CLAIM` that nothing else gets through; may be repeated")
	f.BoolVar(&configOnly, "config-only", false, "look at no endpoints but the workloads of --config")
	f.StringVarP(&output, "output", "o", "text", "`FORMAT` of the answer: text or json")
	return cmd
}

func writeProofs(cmd *cobra.Command, proofs []explain.Proof, output string) error {
	status := 0
	for i := range proofs {
		p := &proofs[i]
		switch {
		case p.Answer != nil:
			status = exitNo
		case p.Unknown != "" && status == 0:
			status = exitUnknown
		}
		if output == "text" {
			if err := p.WriteText(cmd.OutOrStdout()); err != nil {
				return &exitError{code: 2, err: err}
			}
		}
	}
	if output == "json" {
		if err := explain.WriteProofs(cmd.OutOrStdout(), proofs); err != nil {
			return &exitError{code: 2, err: err}
		}
	}
	if status != 0 {
		return &exitError{code: status, err: nil}
	}
	return nil
}

// answerless is the error of a question without any answer: UNKNOWN, or wrong usage.
func answerless(err error) error {
	if explain.IsUnknown(err) {
		return &exitError{code: exitUnknown, err: fmt.Errorf("UNKNOWN: %w", err)}
	}
	return &exitError{code: exitUsage, err: err}
}
