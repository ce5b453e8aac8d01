//go:build linux

package mounts

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	const text = `22 27 0:20 / /proc rw,nosuid,nodev,noexec,relatime shared:5 - proc proc rw
30 23 0:26 / /sys/fs/cgroup ro,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate
40 23 0:31 /a\040b /mnt/with\134back\011tab rw - bpf none rw,mode=700
`
	want := []Mount{
		{ID: 22, Root: "/", Point: "/proc", Type: "proc"},
		{ID: 30, Root: "/", Point: "/sys/fs/cgroup", ReadOnly: true, Type: "cgroup2"},
		{ID: 40, Root: "/a b", Point: "/mnt/with\\back\ttab", Type: "bpf"},
	}
	got, err := Parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, line := range []string{"", "x", "1 2 3", "a 35 98:0 / / rw - ext3 d rw", "1 35 98:0 / - ext3 d rw"} {
		if got, err := Parse(strings.NewReader(line + "\n")); err == nil {
			t.Errorf("%q: parsed as %+v", line, got)
		}
	}
}

func TestOfSelf(t *testing.T) {
	list, err := Of("self", "proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range list {
		if m.Point == "/proc" {
			return
		}
	}
	t.Errorf("no proc mount at /proc in %+v", list)
}
