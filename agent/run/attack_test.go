//go:build linux

package run

func attackMain([]string) {}
