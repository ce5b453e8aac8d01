//go:build linux

package run

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/weir-proxy/weir/agent/internal/cgroup"
	"github.com/weir-proxy/weir/agent/internal/mounts"
	"github.com/weir-proxy/weir/agent/internal/runs"
)

// Run runs one command under a policy and returns how it ended. Errors are of type
// *Error; the command has not run then. Notes and errors of a run under way go to
// standard error.
//
// Run takes over signals for the rest of the process.
func Run(ctx context.Context, o Options) (Status, error) {
	r := &runner{
		Options: o,
		errors:  os.Stderr,
		start: func(ctx context.Context, cfg datapathConfig) (datapath, error) {
			return startDatapath(ctx, cfg)
		},
	}
	return r.run(ctx)
}

type runner struct {
	Options
	errors io.Writer
	start  func(context.Context, datapathConfig) (datapath, error)
	log    *slog.Logger
}

// say writes a line for the user.
func (r *runner) say(format string, args ...any) {
	fmt.Fprintf(r.errors, "weir: "+format+"\n", args...)
}

func (r *runner) run(ctx context.Context) (Status, error) {
	r.log = slog.New(slog.NewTextHandler(r.errors, &slog.HandlerOptions{Level: slog.LevelWarn}))
	if len(r.Command) == 0 || r.Command[0] == "" {
		return Status{}, failed(errors.New("the command is missing: weir run [flags] -- COMMAND [ARGUMENT...]"))
	}
	sub, notes, err := loadSubject(r.Options)
	if err != nil {
		return Status{}, failed(err)
	}
	if err := checkPrivileges(); err != nil {
		return Status{}, failed(err)
	}
	if err := checkStdio(); err != nil {
		return Status{}, failed(err)
	}
	who, err := accountFor(r.User, envMap(os.Environ()))
	if err != nil {
		return Status{}, failed(err)
	}
	signals := listen()
	for _, n := range notes {
		r.say("%s", n)
	}
	return r.inCgroup(ctx, sub, who, signals)
}

// inCgroup makes the run's cgroup, and removes it when the run is over.
func (r *runner) inCgroup(ctx context.Context, sub subject, who account, signals <-chan os.Signal) (status Status, err error) {
	root, err := cgroup.OpenRoot()
	if err != nil {
		return Status{}, failed(err)
	}
	defer root.Close()
	bpffs, err := mounts.OpenBPFFS()
	if err != nil {
		return Status{}, failed(err)
	}
	books := runs.Books{BPFFS: bpffs, Root: root}
	run, err := books.Start()
	if err != nil {
		return Status{}, failed(err)
	}
	defer func() {
		if cerr := run.Close(); cerr != nil {
			r.say("clean up: %v", cerr)
		}
	}()
	own, err := root.Of("self")
	if err != nil {
		return Status{}, failed(err)
	}
	proxyDir, err := root.Open(own)
	if err != nil {
		return Status{}, failed(err)
	}
	defer proxyDir.Close()
	sink, closeSink, err := openRecords(r.Format, r.Log, r.errors, func(err error) { r.say("%v", err) })
	if err != nil {
		return Status{}, failed(err)
	}
	defer func() {
		if cerr := closeSink(); cerr != nil {
			r.say("close log of records: %v", cerr)
		}
	}()
	var lesson *lesson
	if r.Learn != "" {
		if lesson, err = startLesson(r.Options); err != nil {
			return Status{}, failed(err)
		}
		sink = lesson.book.Sink(sink)
		defer func() {
			if err != nil {
				lesson.drop()
			} else if lerr := lesson.write(); lerr != nil {
				r.say("%v", lerr)
			}
		}()
	}
	dp, err := r.start(ctx, datapathConfig{
		ID: run.ID, Cgroup: run.Dir, ProxyCgroup: proxyDir, BPFFS: bpffs,
		Policies: sub.Policies, Labels: sub.Labels, Name: sub.Name, Audit: r.Audit,
		Sink: sink, Log: r.log,
	})
	if err != nil {
		return Status{}, failed(err)
	}
	defer func() {
		// Only an empty cgroup may be set free.
		left, kerr := run.Kill()
		if kerr != nil {
			r.say("end processes left behind: %v: they stay cut off from the network", kerr)
			return
		}
		if left > 0 {
			r.say("the command left %d processes behind, which would run on without a policy: killed", left)
		}
		if cerr := dp.Close(); cerr != nil {
			r.say("clean up: %v", cerr)
		}
	}()
	return r.command(who, signals, run, dp)
}

// command starts the command and stays with it to its end.
func (r *runner) command(who account, signals <-chan os.Signal, run *runs.Run, dp datapath) (Status, error) {
	if sig := fatalSoFar(signals); sig != 0 {
		return Status{Signal: sig}, nil
	}
	c, err := startCommand(r.Command, who, run.Dir, r.log)
	if err != nil {
		return Status{}, err
	}
	go func() {
		if err, ok := <-dp.Err(); ok && err != nil {
			r.say("the proxy failed, and the command is killed, since nobody could judge it: %v", err)
			run.Kill()
		}
	}()
	return c.follow(signals)
}
