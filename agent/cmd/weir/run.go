package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/weir-proxy/weir/agent/run"
)

func runCommand() *cobra.Command {
	var o run.Options
	cmd := &cobra.Command{
		Use:   "run [--policy FILE]... [flags] -- COMMAND [ARGUMENT...]",
		Short: "Run one command under a policy, no daemon",
		Long: `Runs COMMAND with its network connections and HTTP requests judged by policies. The
command notices nothing: no proxy setting, no certificate, no library. It runs as the
user who called sudo, in a cgroup of its own, without the capabilities that would let
it out, and cannot leave.

Every decision leaves one record, on standard error or in the file of --log.

weir ends as the command does: with its exit status, or killed by the same signal.
Its own failures are 125, and then the command has not run; 126 says that the command
cannot be executed, 127 that it was not found.`,
		Example: `  sudo weir run --policy public-only.yaml -- curl http://127.0.0.1:8080/public
  sudo weir run --policy ci.yaml --label job=release -- npm ci
  sudo weir run --audit -- make test
  sudo weir run --learn ci.yaml -- npm ci`,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Command = args
			status, err := run.Run(cmd.Context(), o)
			var e *run.Error
			if errors.As(err, &e) {
				return &exitError{e.Status, e.Err}
			}
			if err != nil {
				return &exitError{run.StatusFailed, err}
			}
			status.Exit()
			return nil
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false) // the flags after COMMAND are its own
	f.StringArrayVarP(&o.Policies, "policy", "p", nil, "policy `FILE`; can be given several times")
	f.StringArrayVarP(&o.Labels, "label", "l", nil, "label of the command, `KEY=VALUE`; can be given several times")
	f.BoolVar(&o.Audit, "audit", false, "let everything through, and record what would be refused as AUDIT")
	f.StringVar(&o.Learn, "learn", "", "let everything through, and write the narrowest readable policy that allows it to `FILE`, which must not exist")
	f.StringVar(&o.User, "user", "", "`NAME` of the user who runs the command (default: the one who called sudo); root stays root")
	f.StringVarP(&o.Format, "output", "o", "compact", "`FORMAT` of the records: compact or json")
	f.StringVar(&o.Log, "log", "", "append the records to `FILE` instead of writing them to standard error")
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &exitError{run.StatusFailed, fmt.Errorf("%w\nsee: %s --help", err, cmd.CommandPath())}
	})
	cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"compact", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}
