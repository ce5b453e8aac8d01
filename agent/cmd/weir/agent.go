package main

import (
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/weir-proxy/weir/agent/daemon"
)

func agentCommand() *cobra.Command {
	var o daemon.Options
	cmd := &cobra.Command{
		Use:   "agent --config FILE",
		Short: "Keep the workloads of this machine under their policies",
		Long: `Keeps the workloads that the configuration names under the policies that it names,
until it is interrupted or terminated, and then leaves nothing behind.

Policy files and directories are watched: what changes in them is put in force as a
whole, or, if one of them cannot be read, not at all, and weir status says why. SIGHUP
has the configuration read again as well, and the log of records opened anew.

If the agent is killed, what it would have judged is refused until it is started again.

Exit status: 0 after SIGINT or SIGTERM, 1 if it failed, 2 for wrong usage.`,
		Example:               "  sudo weir agent --config /etc/weir/agent.yaml",
		Args:                  usageArgs(cobra.NoArgs),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Config == "" {
				return &exitError{exitUsage, errors.New("--config FILE is missing")}
			}
			if o.Socket != "" {
				var err error
				if o.Socket, err = filepath.Abs(o.Socket); err != nil {
					return &exitError{exitUsage, err}
				}
			}
			info, ok := debug.ReadBuildInfo()
			if ok {
				o.Version = info.Main.Version
			}
			o.Stderr = cmd.ErrOrStderr()
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			if err := daemon.Run(ctx, o); err != nil {
				return &exitError{exitNo, err}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.Config, "config", "c", "", "`FILE` that says what is under which policies")
	f.StringVar(&o.Socket, "socket", "", "`PATH` of the socket for commands, in place of the configuration's")
	cmd.MarkFlagFilename("config", "yaml", "yml")
	return cmd
}
