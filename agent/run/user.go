//go:build linux

package run

import (
	"errors"
	"fmt"
	"os/user"
	"strconv"
	"strings"
)

// account is who the command runs as.
type account struct {
	UID, GID int
	Groups   []int
	Name     string
	Home     string
	Changed  bool // it is not the user that weir runs as
}

// accountFor finds who runs the command: name if it is given, else the user who
// called sudo, as env says, else root.
func accountFor(name string, env map[string]string) (account, error) {
	uid := "0"
	switch {
	case name != "":
		u, err := user.Lookup(name)
		var unknown user.UnknownUserError
		if errors.As(err, &unknown) {
			u, err = user.LookupId(name)
		}
		if err != nil {
			return account{}, fmt.Errorf("find user %q for --user: %w", name, err)
		}
		return accountOf(u)
	case env["SUDO_UID"] != "":
		uid = env["SUDO_UID"]
	}
	u, err := user.LookupId(uid)
	if err == nil {
		return accountOf(u)
	}
	// An account that /etc/passwd does not have, from a directory service. sudo knew it.
	a := account{Name: env["SUDO_USER"]}
	var err2, err3 error
	a.UID, err2 = parseID(uid)
	a.GID, err3 = parseID(env["SUDO_GID"])
	if err2 != nil || err3 != nil {
		return account{}, fmt.Errorf("find user who called sudo: %w: name one with --user", err)
	}
	a.Groups = []int{a.GID}
	a.Changed = a.UID != 0
	return a, nil
}

func accountOf(u *user.User) (account, error) {
	a := account{Name: u.Username, Home: u.HomeDir}
	var err error
	if a.UID, err = parseID(u.Uid); err != nil {
		return account{}, err
	}
	if a.GID, err = parseID(u.Gid); err != nil {
		return account{}, err
	}
	a.Changed = a.UID != 0
	groups, err := u.GroupIds()
	if err != nil {
		return account{}, fmt.Errorf("find groups of user %s: %w", u.Username, err)
	}
	for _, g := range groups {
		id, err := parseID(g)
		if err != nil {
			return account{}, err
		}
		a.Groups = append(a.Groups, id)
	}
	return a, nil
}

// parseID reads a user or group id. The highest one means "leave it as it is" to the
// kernel.
func parseID(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == 1<<32-1 {
		return 0, fmt.Errorf("%q is no user or group id", s)
	}
	return int(n), nil
}

// environment returns the command's environment: weir's own, with what sudo made of
// the user's undone.
func (a account) environment(env []string) []string {
	set := map[string]string{}
	if a.Changed {
		set["USER"], set["LOGNAME"] = a.Name, a.Name
		if a.Home != "" {
			set["HOME"] = a.Home
		}
	}
	var out []string
	for _, kv := range env {
		key, _, _ := strings.Cut(kv, "=")
		_, replaced := set[key]
		switch {
		case replaced:
		case a.Changed && (strings.HasPrefix(key, "SUDO_") || key == "MAIL"):
		default:
			out = append(out, kv)
		}
	}
	for _, key := range []string{"HOME", "USER", "LOGNAME"} {
		if v := set[key]; v != "" {
			out = append(out, key+"="+v)
		}
	}
	return out
}

func envMap(env []string) map[string]string {
	m := map[string]string{}
	for _, kv := range env {
		if key, value, ok := strings.Cut(kv, "="); ok {
			m[key] = value
		}
	}
	return m
}
