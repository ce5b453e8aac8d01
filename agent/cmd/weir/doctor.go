package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/weir-proxy/weir/agent/doctor"
)

func doctorCommand() *cobra.Command {
	var output string
	var quiet bool
	cmd := &cobra.Command{
		Use:   "doctor [-o text|json] [--quiet]",
		Short: "Say whether this machine can run weir run, and what is missing",
		Long: `Tries everything that weir run needs of the kernel and of its surroundings, and says
how to get what is missing. It needs root to find out most of it.

Exit status: 0 if everything is there, 1 if something is missing, 2 for wrong usage.`,
		Args:                  usageArgs(cobra.NoArgs),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "text" && output != "json" {
				return &exitError{exitUsage, fmt.Errorf("--output: %q is neither text nor json", output)}
			}
			r := doctor.Check()
			var err error
			switch w := cmd.OutOrStdout(); {
			case quiet && !r.OK():
				_, err = fmt.Fprintln(w, r.Reason())
			case quiet:
			case output == "json":
				err = r.WriteJSON(w)
			default:
				err = r.WriteText(w)
			}
			if err == nil && !r.OK() {
				err = &exitError{code: exitNo}
			}
			return err
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "`FORMAT`: text or json")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print only the first thing that is missing, nothing if nothing is")
	cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}
