//go:build linux

package run

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// checkPrivileges says what this process lacks to confine a command. `weir doctor`
// goes further.
func checkPrivileges() error {
	if os.Geteuid() != 0 {
		return errors.New("weir run needs root to attach the policy to the kernel: start it with sudo (the command itself runs as you)")
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	for _, c := range []struct {
		bit  int
		name string
	}{
		{unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN"},
		{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"},
		{unix.CAP_SETUID, "CAP_SETUID"},
		{unix.CAP_SETGID, "CAP_SETGID"},
		{unix.CAP_SETPCAP, "CAP_SETPCAP"},
		{unix.CAP_SETFCAP, "CAP_SETFCAP"}, // to map root into the command's user namespace
	} {
		if data[c.bit/32].Effective&(1<<(c.bit%32)) == 0 {
			return fmt.Errorf("weir run needs %s, which this root does not have, as in an unprivileged container or under another weir run (`weir doctor` says more)", c.name)
		}
	}
	return nil
}
