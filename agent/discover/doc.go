// Package discover finds workloads that nobody wrote into the configuration: the
// containers of a Docker engine on this machine.
package discover
