package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// execute runs the command line and returns the exit status.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := rootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return report(root.ExecuteContext(ctx), stderr)
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "weir",
		Short: "Who may say what to whom, enforced by Linux without touching the application",
		Long: `Weir lets an operator say who may say what to whom, and makes Linux enforce it
without touching an application: BPF programs catch a workload's connections, and
one proxy judges each request by CiliumNetworkPolicy files.`,
		SilenceUsage:               true,
		SilenceErrors:              true,
		SuggestionsMinimumDistance: 2,
		Args:                       cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return cmd.Help()
		},
	}
	root.CompletionOptions.HiddenDefaultCmd = false
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &exitError{exitUsage, fmt.Errorf("%w\nsee: %s --help", err, cmd.CommandPath())}
	})
	root.AddCommand(runCommand(), agentCommand(), statusCommand(), endpointCommand(), identityCommand(), observeCommand(),
		doctorCommand(), versionCommand(), policyCommand(), gatewayCommand())
	return root
}

func unknownCommand(cmd *cobra.Command, name string) error {
	text := fmt.Sprintf("unknown command %q", name)
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		text += fmt.Sprintf(", perhaps %q", strings.Join(near, `" or "`))
	}
	return &exitError{exitUsage, errors.New(text + "\nsee: " + cmd.CommandPath() + " --help")}
}
