//go:build linux

package discover

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-proxy/weir/identity"
)

func TestLabels(t *testing.T) {
	const base = "container:image=shop/web:1,container:name=web"
	long := strings.Repeat("x", identity.MaxLabelLen+1)
	compose := map[string]string{composeProject: "shop", composeService: "web", composeNumber: "1"}
	for _, c := range []struct {
		name          string
		docker, image map[string]string
		want          string // after base, without the namespace
	}{
		{"none", nil, nil, ""},
		{"one", map[string]string{"app": "a"}, nil, "container:app=a"},
		{"without value", map[string]string{"app": ""}, nil, "container:app="},
		{"of compose", compose, nil,
			"container:com.docker.compose.container-number=1,container:com.docker.compose.project=shop,container:com.docker.compose.service=web," +
				"container:compose.project=shop,container:compose.service=web"},
		{"of compose, in an image that it built", compose, map[string]string{composeProject: "shop", composeService: "web"},
			"container:com.docker.compose.container-number=1,container:com.docker.compose.project=shop,container:com.docker.compose.service=web," +
				"container:compose.project=shop,container:compose.service=web"},
		// What the author of an image writes gives it nothing.
		{"an image's", map[string]string{"app": "a", "tier": "x"}, map[string]string{"app": "a"}, "container:tier=x"},
		{"an image's, given another value", map[string]string{"app": "b"}, map[string]string{"app": "a"}, "container:app=b"},
		{"compose's, by the image", compose, compose, ""},
		{"compose's, by the image in part", map[string]string{composeProject: "shop", composeService: "web"}, map[string]string{composeProject: "shop"},
			"container:com.docker.compose.service=web"},
		// What has a meaning of its own is nobody's to give.
		{"ours", map[string]string{"name": "db", "image": "db", "compose.service": "db", "compose.project": "p"}, nil, ""},
		{"a namespace", map[string]string{identity.NamespaceKey: "shop", identity.ServiceAccountKey: "root", "io.cilium.k8s.namespace.labels.team": "red"}, nil, ""},
		{"another source", map[string]string{"k8s:app": "a", "reserved:host": ""}, nil, "container:k8s%3Aapp=a,container:reserved%3Ahost="},
		{"bytes", map[string]string{"a b,c=d%": "x, y=z%:\n\xc3\xa4"}, nil, "container:a%20b%2Cc%3Dd%25=x%2C y=z%:%0A%C3%A4"},
		{"the same after all", map[string]string{"a:": "1", "a%3A": "2"}, nil, "container:a%253A=2,container:a%3A=1"},
		{"too long", map[string]string{long: "v", "k": long, "e": strings.Repeat(",", identity.MaxLabelLen/3+1)}, nil, "container:e=%,container:k=%"},
	} {
		got, err := makeLabels("web", "shop/web:1", c.docker, c.image)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got.Namespace() != identity.DefaultNamespace {
			t.Errorf("%s: namespace %q", c.name, got.Namespace())
		}
		want := strings.Split(base, ",")
		if c.want != "" {
			want = append(want, strings.Split(c.want, ",")...)
		}
		want = append(want, "k8s:"+identity.NamespaceKey+"=default")
		slices.Sort(want)
		var all []string
		for _, l := range got.All() {
			all = append(all, l.String())
		}
		slices.Sort(all)
		if diff := cmp.Diff(want, all); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestHeldBy(t *testing.T) {
	for _, c := range []struct {
		h    hostConfig
		want string
	}{
		{hostConfig{}, "NET_RAW"},
		{hostConfig{CapDrop: []string{"NET_RAW"}}, ""},
		{hostConfig{CapDrop: []string{"CAP_NET_RAW"}}, ""},
		{hostConfig{CapDrop: []string{"net_raw", "CHOWN"}}, ""},
		{hostConfig{CapDrop: []string{"CHOWN"}}, "NET_RAW"},
		{hostConfig{CapDrop: []string{"ALL"}}, ""},
		{hostConfig{CapDrop: []string{"all"}, CapAdd: []string{"NET_BIND_SERVICE"}}, ""},
		{hostConfig{CapDrop: []string{"ALL"}, CapAdd: []string{"cap_net_admin"}}, "NET_ADMIN"},
		{hostConfig{CapAdd: []string{"NET_ADMIN", "BPF"}}, "BPF NET_ADMIN NET_RAW"},
		{hostConfig{CapDrop: []string{"NET_RAW"}, CapAdd: []string{"NET_RAW"}}, "NET_RAW"}, // as Docker has it
		{hostConfig{CapAdd: []string{"SYS_MODULE"}}, "NET_RAW SYS_MODULE"},
		{hostConfig{CapAdd: []string{"ALL"}}, "BPF NET_ADMIN NET_RAW SYS_ADMIN SYS_MODULE"},
		{hostConfig{CapAdd: []string{"ALL"}, CapDrop: []string{"NET_RAW", "SYS_ADMIN"}}, "BPF NET_ADMIN SYS_MODULE"},
		{hostConfig{Privileged: true, CapDrop: []string{"ALL"}}, "BPF NET_ADMIN NET_RAW SYS_ADMIN SYS_MODULE"},
	} {
		if got := strings.Join(c.h.heldBy(), " "); got != c.want {
			t.Errorf("%+v: %q, want %q", c.h, got, c.want)
		}
	}
}

// Whatever a container's labels are, they become labels that can be written down, and
// none of another source.
func FuzzLabels(f *testing.F) {
	f.Add("app", "a", "tier", "x", true)
	f.Add("k8s:app", "a,b", "k8s%3Aapp", "\xff", false)
	f.Add("name", "db", composeService, "db", false)
	f.Add(composeNumber, "1", composeService, "x=y", true)
	f.Add(identity.NamespaceKey, "shop", "", "", false)
	f.Fuzz(func(t *testing.T, k1, v1, k2, v2 string, ofImage bool) {
		var image map[string]string
		if ofImage {
			image = map[string]string{k1: v1}
		}
		ls, err := makeLabels("web", v2, map[string]string{k1: v1, k2: v2}, image)
		if err != nil {
			t.Fatal(err)
		}
		if name, _ := ls.Get(identity.SourceAny, KeyName); name != "web" {
			t.Fatalf("name %q", name)
		}
		for _, l := range ls.All() {
			again, err := identity.ParseLabel(l.String())
			if err != nil || again != l {
				t.Fatalf("%v is read as %v, %v", l, again, err)
			}
			if l.Source != identity.SourceContainer && l.Key != identity.NamespaceKey {
				t.Fatalf("%v", l)
			}
		}
	})
}
