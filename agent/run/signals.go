//go:build linux

package run

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// passedOn are the signals that weir passes on to the command.
var passedOn = []os.Signal{
	unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2,
	unix.SIGTSTP, unix.SIGCONT, unix.SIGWINCH,
}

// listen returns the signals that arrive from now on.
func listen() <-chan os.Signal {
	c := make(chan os.Signal, 16)
	for _, s := range passedOn {
		// Ignored, as under nohup: it stays so, here and for the command, which inherits that.
		if !signal.Ignored(s) {
			signal.Notify(c, s)
		}
	}
	// A reader of standard error that goes away must not take weir along and leave the
	// command cut off: with a handler, writing fails instead.
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)
	return c
}

// fromTerminal reports whether a signal that has just arrived comes from the terminal,
// which sends it to the whole foreground process group, and so to the command too.
// Nobody tells who sent it (package os/signal); that this process is in the foreground
// is taken for it.
func fromTerminal(s os.Signal) bool {
	switch s {
	case unix.SIGINT, unix.SIGQUIT, unix.SIGTSTP, unix.SIGWINCH:
	default:
		return false
	}
	fd, err := openTerminal()
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// openTerminal opens the controlling terminal; it fails if there is none.
func openTerminal() (int, error) {
	return unix.Open("/dev/tty", unix.O_RDONLY|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
}

// fatalSoFar returns a signal that has arrived and would have ended this process if
// nobody listened, else 0.
func fatalSoFar(signals <-chan os.Signal) syscall.Signal {
	for {
		select {
		case s := <-signals:
			switch s {
			case unix.SIGTSTP, unix.SIGCONT, unix.SIGWINCH:
			default:
				return s.(syscall.Signal)
			}
		default:
			return 0
		}
	}
}

// stopSelf stops this process, for the shell to see, until it is continued; not if still
// says no. A SIGCONT that comes meanwhile is not lost: the stop is pending before still
// is asked, and the kernel discards it then (signal(7)).
func stopSelf(still func() bool) error {
	// To this thread, so that it has stopped when the mask is taken off.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// SIGTSTP, because SIGSTOP cannot be blocked.
	stop := unix.Sigset_t{Val: [len(unix.Sigset_t{}.Val)]uint64{1 << (unix.SIGTSTP - 1)}}
	var mask unix.Sigset_t
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &stop, &mask); err != nil {
		return fmt.Errorf("block signal: %w", err)
	}
	defer unix.PthreadSigmask(unix.SIG_SETMASK, &mask, nil)
	before, err := setAction(unix.SIGTSTP, sigaction{})
	if err != nil {
		return err
	}
	defer setAction(unix.SIGTSTP, before)
	if err := unix.Tgkill(unix.Getpid(), unix.Gettid(), unix.SIGTSTP); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	if !still() {
		// Ignored, a pending signal is discarded.
		_, err := setAction(unix.SIGTSTP, ignore)
		return err
	}
	return unix.PthreadSigmask(unix.SIG_SETMASK, &mask, nil)
}

// sigaction is large enough for the kernel's struct sigaction in every layout. Zeros are
// SIG_DFL without flags.
type sigaction [64]byte

// ignore is SIG_IGN: the handler comes first on all platforms but MIPS.
var ignore = sigaction{0: 1}

func setAction(sig syscall.Signal, action sigaction) (before sigaction, err error) {
	_, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&action)), uintptr(unsafe.Pointer(&before)), 8, 0, 0)
	if e != 0 {
		return before, fmt.Errorf("set what a signal does: %w", e)
	}
	return before, nil
}

// raise kills this process by a signal that killed the command. It returns if the
// signal is blocked.
func raise(sig syscall.Signal) {
	runtime.LockOSThread()
	// The core that is worth having is the command's.
	unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	setAction(sig, sigaction{}) // Go's runtime has handlers that it does not take back
	unix.Tgkill(unix.Getpid(), unix.Gettid(), sig)
}
