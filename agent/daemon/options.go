// Package daemon is `weir agent`: it keeps an agent in step with its configuration, its
// policy files and the containers of the machine, and answers the commands that ask.
package daemon

import "io"

// Options are of the command line.
type Options struct {
	Config  string    // file
	Socket  string    // in place of the configuration's; "" is that
	Version string    // for `weir status`
	Stderr  io.Writer // notes, and records if the configuration names no file for them
}
