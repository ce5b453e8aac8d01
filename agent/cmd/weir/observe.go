package main

import (
	"errors"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/weir-proxy/weir/agent/api"
	"github.com/weir-proxy/weir/agent/records"
)

// recently is how many records weir observe prints of those that are there already.
const recently = 20

func observeCommand() *cobra.Command {
	var a asking
	var q api.Query
	cmd := &cobra.Command{
		Use:   "observe [-f]",
		Short: "Print the records of the agent: who said what to whom, and what came of it",
		Long: `Prints the latest records of the agent, and with --follow those that come: who said what
to whom, and what came of it. The agent has the last few thousand. One who follows
slower than records come misses some, and is told how many.

WHO is ` + api.Who + `.
A filter with several values, or given several times, means any of them; different
filters must all match.

Exit status: 0, 1 if no agent runs or it stops, 2 for wrong usage.`,
		Example: `  sudo weir observe -f --verdict DROPPED
  sudo weir observe --last 100 --from shop/frontend --type http -o json`,
		Args:                  usageArgs(cobra.NoArgs),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.check("compact", "json"); err != nil {
				return err
			}
			if q.Follow && !cmd.Flags().Changed("last") {
				q.Last = 0
			}
			if q.Last < 0 {
				return &exitError{exitUsage, errors.New("--last: a negative number of records")}
			}
			if err := q.Filter.Check(); err != nil {
				return &exitError{exitUsage, err}
			}
			q.Format = records.Format(a.output)
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			err := api.NewClient(a.socket).Records(ctx, q, cmd.OutOrStdout())
			if err != nil && !errors.Is(err, syscall.EPIPE) {
				return &exitError{exitNo, err}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&q.Follow, "follow", "f", false, "go on with the records that come")
	f.IntVar(&q.Last, "last", recently, "print the last `N` records; with --follow the default is none")
	f.StringSliceVar(&q.Filter.Verdicts, "verdict", nil, "`VERDICT`: FORWARDED, DROPPED, AUDIT or ERROR")
	f.StringSliceVar(&q.Filter.Types, "type", nil, "`TYPE`, such as http-request or http, tcp-connect, udp-send, socket")
	f.StringSliceVar(&q.Filter.From, "from", nil, "`WHO` sends")
	f.StringSliceVar(&q.Filter.To, "to", nil, "`WHO` receives")
	a.flags(cmd, "compact", "json")
	cmd.RegisterFlagCompletionFunc("verdict", cobra.FixedCompletions(strings.Fields("FORWARDED DROPPED AUDIT ERROR"), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}
