// Command weir lets an operator say who may say what to whom, and makes Linux
// enforce it.
package main

import (
	"context"
	"os"

	"github.com/weir-proxy/weir/agent/run"
)

func main() {
	// In the process that is to become the command of a weir run, this does not return.
	run.Main()
	os.Exit(execute(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}
