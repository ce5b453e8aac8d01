package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/weir-proxy/weir/agent/gateway"
	"github.com/weir-proxy/weir/agent/records"
)

func gatewayCommand() *cobra.Command {
	var c gateway.Config
	var to, from, output, logFile string
	cmd := &cobra.Command{
		Use:   "gateway --policy FILE --listen ADDR --to ADDR --from LABELS",
		Short: "Put the judge in front of one address, without the kernel",
		Long: `Listen on one address and carry every connection to another, judged as if a
workload with the given labels had connected there. It needs no root and runs on
any system: to try a policy, to test, to compare.`,
		Example: "  weir gateway --policy policy.yaml --listen 127.0.0.1:8081 --to 127.0.0.1:8080 --from app=client",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			addr, err := resolve(ctx, to)
			if err != nil {
				return &exitError{2, fmt.Errorf("read --to: %w", err)}
			}
			c.To, c.From = addr, splitLabels(from)
			if err := serveGateway(ctx, c, records.Format(output), logFile, cmd.ErrOrStderr()); err != nil {
				return &exitError{1, err}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&c.Policies, "policy", nil, "policy `FILE`; may be repeated")
	f.StringVar(&c.Listen, "listen", "", "`ADDR` to listen on, such as 127.0.0.1:8081")
	f.StringVar(&to, "to", "", "`ADDR` that connections are for, such as 127.0.0.1:8080")
	f.StringVar(&from, "from", "", "`LABELS` of whoever connects, such as app=client,tier=web")
	f.StringVarP(&output, "output", "o", string(records.Compact), "records as compact or json")
	f.StringVar(&logFile, "log", "", "write records to `FILE` instead of stderr")
	for _, name := range []string{"policy", "listen", "to", "from"} {
		cmd.MarkFlagRequired(name)
	}
	return cmd
}

func serveGateway(ctx context.Context, c gateway.Config, format records.Format, logFile string, stderr io.Writer) error {
	out := stderr
	if logFile != "" {
		f, err := os.OpenFile(logFile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
		if err != nil {
			return fmt.Errorf("open log of records: %w", err)
		}
		defer f.Close()
		out = f
	}
	note := func(s string) { fmt.Fprintln(stderr, "weir gateway:", s) }
	w, err := records.New(out, format, func(err error) { note(err.Error()) })
	if err != nil {
		return err
	}
	c.Notes, c.Log = note, slog.New(slog.NewTextHandler(stderr, nil))
	g, err := gateway.Open(ctx, c)
	if err != nil {
		w.Close()
		return err
	}
	note(fmt.Sprintf("listening on %v for %v", g.Addr(), c.To))
	return errors.Join(g.Serve(ctx, w.Sink), w.Close())
}

// resolve reads an address, or a name that has one, with its port.
func resolve(ctx context.Context, s string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return netip.AddrPort{}, err
	}
	n, err := net.DefaultResolver.LookupPort(ctx, "tcp", port)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if n == 0 {
		return netip.AddrPort{}, fmt.Errorf("%q: port 0", s)
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.AddrPortFrom(addrs[0].Unmap(), uint16(n)), nil
}

func splitLabels(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}
