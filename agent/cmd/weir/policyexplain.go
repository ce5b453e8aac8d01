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
	host, sni     string
	output        string
	batch         bool
}

func policyExplainCommand() *cobra.Command {
	var o explainOptions
	cmd := &cobra.Command{
		Use:   "explain --policy FILE --from WHO --to WHO:PORT",
		Short: "Say whether policies let a flow or a request through, and why",
		Long: `Say whether policies let a flow or a request through: FORWARDED or DROPPED on the first
line, then which rule decided, or which came nearest and what differed. AUDIT is let
through where only policies with audit: true would refuse it. The sender's egress and the
receiver's ingress must both let it through.

WHO is labels (app=a,k8s:tier=b), an entity (host, world) or an address; with --config also
a workload or a declared address of it (shop/frontend), and then labels have those of their
namespace too. --to self is the sender itself; a name of DNS, or NAME@ADDRESS, is an address
that the sender was told for it. A loopback address is entity host. Labels without
k8s:io.kubernetes.pod.namespace are in namespace default.

--kafka is API [RESOURCE] [version:N] [client:ID]: a name such as produce or fetch, or a
number, and what it names: topic:NAME or NAME, group:NAME, transaction:NAME, cluster.

--batch reads queries from standard input, a JSON object each line with the fields from,
to, protocol, http, grpc, dns, sni, kafka, raw, host and headers, and answers each with a
line of JSON.

Exit status: 0 if it is let through, 1 if not, 2 for wrong usage or a policy that cannot be
read. Of a batch: 0 if everything is let through, 1 if something is not, 2 if a line was no
query.`,
		Example: `  weir policy explain --policy policy.yaml --from app=client --to host:8080 --http 'GET /public'
  weir policy explain --policy policy.yaml --config agent.yaml --from shop/frontend --to shop/orders:8080
  weir policy explain --policy policy.yaml --from app=client --to packages.example.com:443 --sni packages.example.com
  weir policy explain --policy policy.yaml --from app=client --to app=kafka:9092 --kafka 'produce orders' -o json
  echo '{"from":"app=client","to":"host:8080","http":"GET /"}' | weir policy explain --policy policy.yaml --batch`,
		Args:                  usageArgs(cobra.NoArgs),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("host") {
				o.query.Host = &o.host
			}
			if cmd.Flags().Changed("sni") {
				o.query.SNI = &o.sni
			}
			return o.run(cmd)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.files, "policy", nil, "policy `FILE` or directory; may be repeated")
	f.StringVar(&o.configuration, "config", "", "configuration `FILE` of the agent, for its workloads, addresses and namespaces")
	f.StringVar(&o.query.From, "from", "", "`WHO` connects")
	f.StringVar(&o.query.To, "to", "", "`WHO:PORT` is connected to")
	f.StringVar(&o.query.Protocol, "protocol", "", "tcp, udp or sctp (default tcp; udp with --dns)")
	f.StringVar(&o.query.HTTP, "http", "", "the `REQUEST` 'METHOD PATH' on the connection")
	f.StringVar(&o.host, "host", "", "the request's `HOST`, port included; without it what a client would send")
	f.StringArrayVar(&o.query.Headers, "header", nil, "a `HEADER` 'Name: value' of the request; may be repeated")
	f.StringVar(&o.query.GRPC, "grpc", "", "the `CALL` 'pkg.Service/Method'")
	f.StringVar(&o.query.DNS, "dns", "", "the `QUESTION` 'NAME' or 'NAME TYPE' to a name server")
	f.StringVar(&o.sni, "sni", "", "a TLS connection with this server `NAME`; '' for none")
	f.StringVar(&o.query.Kafka, "kafka", "", "the `REQUEST` 'API TOPIC' to a Kafka broker")
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
		for _, name := range []string{"from", "to", "protocol", "http", "host", "header", "grpc", "dns", "sni", "kafka", "raw"} {
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
	if answer.Verdict != flow.Forwarded && answer.Verdict != flow.Audit {
		return &exitError{code: 1, err: nil}
	}
	return nil
}
