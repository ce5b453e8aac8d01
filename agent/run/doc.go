// Package run is `weir run`: one command under a policy, without a daemon.
//
// The policy is in force before the command exists: weir makes a cgroup, attaches
// the programs to it, and has the kernel create the command's process inside
// (CLONE_INTO_CGROUP). Between that and the command's own program stands a shim,
// this same binary, that takes from the process what it could leave with.
//
// # What the command may not do, and what sees to it
//
// The command runs as the user who called sudo, or as --user says. It may be
// root, and it is taken for an adversary. It cannot
//
//   - leave its cgroup by writing cgroup.procs: every cgroup mount, of version 1
//     and 2, is read-only in its mount namespace, and it cannot mount another
//     one. That would take a cgroup namespace of its own, and its limit of those
//     is 0, in every user namespace it may make as well (user_namespaces(7):
//     limits hold for descendants);
//   - leave it by clone3(2) with CLONE_INTO_CGROUP, for which a read-only mount is
//     good enough: clone3 does not exist for it;
//   - undo those mounts: it has no CAP_SYS_ADMIN over its mount namespace, and in
//     one that it makes in a new user namespace they are locked
//     (mount_namespaces(7)). Its mounts are private: what the host mounts later
//     does not reach it either;
//   - reach the pinned programs: every BPF file system is covered by an empty
//     read-only one, and bpf(2) wants capabilities it does not have;
//   - make another process, one outside, do it: ptrace(2), /proc/PID/mem,
//     /proc/PID/root, /proc/PID/fd, pidfd_getfd(2) and process_vm_writev(2) are
//     refused for any process outside, also for those of its own user, because
//     it lives in a user namespace of its own. All ids are mapped there to
//     themselves, so that files, ids and /proc look as they do outside. Killing
//     weir, which a command that runs as root can do, cuts the command off;
//   - gain privileges by a set-user-ID program: no_new_privs is set;
//   - open raw or packet sockets, load modules, or use any capability of the
//     host: its capabilities are those of its user namespace, and of these the
//     ones in [droppedCaps] are gone from the bounding set;
//   - have the kernel start a program outside: request_key(2) is refused, and with
//     --user root /proc/sys (core_pattern, modprobe), its neighbours, /sys and the
//     other control file systems are read-only;
//   - type into the terminal, for the shell to execute later (TIOCSTI);
//   - use descriptors that it was given: all above 2 are closed, and a network
//     socket, a cgroup or BPF file, or a nameless kernel object at 0, 1 or 2 is
//     refused.
//
// What remains: it may ask a service outside to do something for it, through a
// unix socket or a file that such a service reads: systemd-run --user, a Docker
// socket, an SSH agent, crontab. Sockets of other families than IP, such as AF_VSOCK or
// AF_BLUETOOTH, have no hooks and are not judged. Root may write any file of the host, also with
// all of the above, so give --user root only to what you would trust with that.
//
// The price: with --user root the command is root over files, not over the
// machine. It cannot bind ports below net.ipv4.ip_unprivileged_port_start, mount,
// set the clock, or change sysctls. A debugger outside needs root to attach to it.
//
// # Signals, jobs and the end
//
// The command stays in the process group that weir was started in. What the
// terminal sends, it sends to the command as well, so weir passes nothing on; it
// passes on what a process sends to weir alone. A signal that a process sends to
// the whole group reaches the command twice, because the kernel does not tell weir
// which of both it was. When the command stops, weir stops, and continues it when
// it is continued itself.
//
// When the command ends, processes it left behind are killed, since nobody would
// judge them any more, and weir says so. weir then ends as the command did: with
// its exit status, or killed by the same signal, for which a shell shows 128+N.
package run
