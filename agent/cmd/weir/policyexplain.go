package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/weir-proxy/weir/agent/explain"
	"github.com/weir-proxy/weir/l7rules/flow"
)

type explainOptions struct {
	files         []string
	configuration string
	query         explain.Query
	host          string
	output        string
	batch         bool
}

func policyExplainCommand() *cobra.Command {
	var o explainOptions
	cmd := &cobra.Command{
		Use:   "explain --policy FILE --from WHO --to WHO:PORT",
		Short: "Say whether policies let a flow or a request through, and why",
		Long: `Say whether policies let a flow or a request through: FORWARDED or DROPPED on the first
line, then which rule decided, or which came nearest and what differed. The sender's
egress and the receiver's ingress must both let it through.

WHO is labels (app=a,k8s:tier=b), an entity (host, world) or an address; with --config also
a workload or a declared address of it (shop/frontend), and then labels have those of their
namespace too. --to self is the sender itself. A loopback address is entity host. Labels
without k8s:io.kubernetes.pod.namespace are in namespace default.

--batch reads queries from standard input, a JSON object each line with the fields from,
to, protocol, http, host, headers and raw, and answers each with a line of JSON.

Exit status: 0 if it is let through, 1 if not, 2 for wrong usage or a policy that cannot be
read. Of a batch: 0 if everything is let through, 1 if something is not, 2 if a line was no
query.`,
		Example: `  weir policy explain --policy policy.yaml --from app=client --to host:8080 --http 'GET /public'
  weir policy explain --policy policy.yaml --config agent.yaml --from shop/frontend --to shop/orders:8080
  weir policy explain --policy policy.yaml --from app=client --to 192.0.2.7:443 -o json
  echo '{"from":"app=client","to":"host:8080","http":"GET /"}' | weir policy explain --policy policy.yaml --batch`,
		Args:                  usageArgs(cobra.NoArgs),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("host") {
				o.query.Host = &o.host
			}
			return o.run(cmd)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.files, "policy", nil, "policy `FILE` or directory; may be repeated")
	f.StringVar(&o.configuration, "config", "", "configuration `FILE` of the agent, for its workloads, addresses and namespaces")
	f.StringVar(&o.query.From, "from", "", "`WHO` connects")
	f.StringVar(&o.query.To, "to", "", "`WHO:PORT` is connected to")
	f.StringVar(&o.query.Protocol, "protocol", "tcp", "tcp, udp or sctp")
	f.StringVar(&o.query.HTTP, "http", "", "the `REQUEST` 'METHOD PATH' on the connection")
	f.StringVar(&o.host, "host", "", "the request's `HOST`, port included; without it what a client would send")
	f.StringArrayVar(&o.query.Headers, "header", nil, "a `HEADER` 'Name: value' of the request; may be repeated")
	f.BoolVar(&o.query.Raw, "raw", false, "bytes in no protocol that rules can be written in")
	f.BoolVar(&o.batch, "batch", false, "read queries as lines of JSON from standard input")
	f.StringVarP(&o.output, "output", "o", "text", "`FORMAT` of the answer: text or json")
	return cmd
}

func (o *explainOptions) run(cmd *cobra.Command) error {
	if o.output != "text" && o.output != "json" {
		return &exitError{code: 2, err: fmt.Errorf("--output: %q is neither text nor json", o.output)}
	}
	if o.batch {
		for _, name := range []string{"from", "to", "protocol", "http", "host", "header", "raw"} {
			if cmd.Flags().Changed(name) {
				return &exitError{code: 2, err: fmt.Errorf("--%s: with --batch the queries come from standard input", name)}
			}
		}
	}
	policies, c, err := readPolicies(o.files, o.configuration)
	if err != nil {
		return err
	}
	set := explain.NewSet(policies, c)
	if o.batch {
		sum, err := set.Batch(cmd.InOrStdin(), cmd.OutOrStdout())
		switch {
		case err != nil:
			return &exitError{code: 2, err: err}
		case sum.Wrong > 0:
			return &exitError{code: 2, err: fmt.Errorf("%s of %d not answered", count(sum.Wrong, "query", "queries"), sum.Wrong+sum.Forwarded+sum.Dropped)}
		case sum.Dropped > 0:
			return &exitError{code: 1, err: nil}
		}
		return nil
	}
	answer, err := set.Ask(o.query)
	if err != nil {
		return &exitError{code: 2, err: err}
	}
	write := answer.WriteText
	if o.output == "json" {
		write = answer.WriteJSON
	}
	if err := write(cmd.OutOrStdout()); err != nil {
		return &exitError{code: 2, err: err}
	}
	if answer.Verdict != flow.Forwarded {
		return &exitError{code: 1, err: nil}
	}
	return nil
}
