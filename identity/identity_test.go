package identity

import (
	"slices"
	"strings"
	"testing"
)

func TestParseLabel(t *testing.T) {
	for text, want := range map[string]Label{
		"app=a":                 {"k8s", "app", "a"},
		"app":                   {"k8s", "app", ""},
		"app=":                  {"k8s", "app", ""},
		"k8s:app=a":             {"k8s", "app", "a"},
		"container:image=a:1=b": {"container", "image", "a:1=b"},
		"a.b/c=x y":             {"k8s", "a.b/c", "x y"},
	} {
		got, err := ParseLabel(text)
		if err != nil || got != want {
			t.Errorf("ParseLabel(%q) = %v, %v, want %v", text, got, err, want)
		}
		if again, err := ParseLabel(got.String()); err != nil || again != got {
			t.Errorf("ParseLabel(%q) = %v, %v", got, again, err)
		}
	}
	for _, text := range []string{"", "=a", ":a=b", "k8s:=b", "reserved:host", "reserved:host=", "any:app=a", "a b=c", "app=a,b", "app=a\nb", "app=\x1b", "Ä=x",
		"K8S:app=a", "a:b:c=d", "app=" + strings.Repeat("x", MaxLabelLen+1), strings.Repeat("x", MaxLabelLen+1) + "=a"} {
		if l, err := ParseLabel(text); err == nil {
			t.Errorf("ParseLabel(%q) = %v", text, l)
		}
	}
}

func TestWorkload(t *testing.T) {
	for _, c := range []struct {
		namespace string
		labels    []string
		want      string // "" for an error
	}{
		{"", []string{"b=2", "a=1"}, "k8s:a=1,k8s:b=2,k8s:io.kubernetes.pod.namespace=default"},
		{"", nil, "k8s:io.kubernetes.pod.namespace=default"},
		{"shop", []string{"a=1", "a=1"}, "k8s:a=1,k8s:io.kubernetes.pod.namespace=shop"},
		{"", []string{"io.kubernetes.pod.namespace=shop"}, "k8s:io.kubernetes.pod.namespace=shop"},
		{"shop", []string{"io.kubernetes.pod.namespace=other"}, ""},
		{"", []string{"a=1", "a=2"}, ""},
		{"", []string{"a=1", "container:a=2"}, "container:a=2,k8s:a=1,k8s:io.kubernetes.pod.namespace=default"},
		{"", []string{"reserved:host"}, ""},
		{"a,b", nil, ""},
	} {
		got, err := Workload(c.namespace, c.labels...)
		if (err != nil) != (c.want == "") || got.String() != c.want {
			t.Errorf("Workload(%q, %q) = %v, %v, want %q", c.namespace, c.labels, got, err, c.want)
		}
	}
}

func TestLabelsAreImmutable(t *testing.T) {
	in := []Label{{"k8s", "b", "2"}, {"k8s", "a", "1"}}
	ls, err := NewLabels(in...)
	if err != nil {
		t.Fatal(err)
	}
	in[0].Value = "changed"
	ls.All()[0].Value = "changed"
	if got := ls.String(); got != "k8s:a=1,k8s:b=2" {
		t.Errorf("labels %s", got)
	}
	if v, ok := ls.Get("any", "b"); v != "2" || !ok {
		t.Errorf("Get = %q, %v", v, ok)
	}
	if _, ok := ls.Get("container", "b"); ok {
		t.Error("a label of another source was found")
	}
	var zero Labels
	if zero.Len() != 0 || zero.String() != "" || zero.All() != nil || !zero.Equal(ID(300).Labels()) {
		t.Error("the zero set is not empty")
	}
}

func TestSelector(t *testing.T) {
	labels := map[string]Labels{}
	for name, texts := range map[string][]string{"a": {"app=a", "tier=x"}, "b": {"app=b"}, "docker": {"container:app=a"}, "none": nil} {
		ls, err := ParseLabels(texts...)
		if err != nil {
			t.Fatal(err)
		}
		labels[name] = ls
	}
	labels["host"] = Host.Labels()
	labels["prefix"] = (FirstLocal + 7).Labels()
	one := func(source, key string, op Operator, values ...string) []Requirement {
		return []Requirement{{source, key, op, values}}
	}
	for _, c := range []struct {
		reqs []Requirement
		text string
		want string // who matches
	}{
		{nil, "{}", "a b docker host none prefix"},
		{one("any", "app", In, "a"), "app=a", "a docker"},
		{one("k8s", "app", In, "a"), "k8s:app=a", "a"},
		{one("any", "app", In, "b", "a"), "app in (a,b)", "a b docker"},
		{one("any", "app", NotIn, "a"), "app notin (a)", "b host none prefix"},
		{one("any", "app", Exists), "app", "a b docker"},
		{one("any", "app", DoesNotExist), "!app", "host none prefix"},
		{one("reserved", "host", Exists), "reserved:host", "host"},
		{one("reserved", "world", In, ""), "reserved:world=", "prefix"},
		{append(one("any", "tier", Exists), one("any", "app", In, "a")...), "app=a,tier", "a"},
		{append(one("any", "tier", DoesNotExist), one("any", "app", In, "a")...), "app=a,!tier", "docker"},
	} {
		s, err := NewSelector(c.reqs...)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for name, ls := range labels {
			if s.Matches(ls) {
				got = append(got, name)
			}
			if s.Matches(ls) != (len(s.Missing(ls)) == 0) {
				t.Errorf("%s: Missing does not agree with Matches for %s", s, name)
			}
		}
		slices.Sort(got)
		if strings.Join(got, " ") != c.want || s.String() != c.text {
			t.Errorf("%s (want %s) matches %v, want %s", s, c.text, got, c.want)
		}
	}
	for name, r := range map[string]Requirement{
		"In without values": {"any", "app", In, nil}, "Exists with values": {"any", "app", Exists, []string{"a"}},
		"unknown operator": {"any", "app", 9, nil}, "no key": {"any", "", Exists, nil}, "no source": {"", "app", Exists, nil},
	} {
		if _, err := NewSelector(r); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if (&Requirement{"any", "app", 9, nil}).matches(labels["a"]) {
		t.Error("an unknown operator matches")
	}
}

func TestIDs(t *testing.T) {
	for id, want := range map[ID]string{Unknown: "unknown", Host: "host", World: "world", Unmanaged: "unmanaged", Health: "health", Init: "init",
		RemoteNode: "remote-node", KubeAPIServer: "kube-apiserver", Ingress: "ingress", WorldIPv4: "world-ipv4", WorldIPv6: "world-ipv6", 11: "11", FirstLocal: "16777216"} {
		if id.String() != want {
			t.Errorf("%d is %s, want %s", uint32(id), id, want)
		}
	}
	for _, id := range []ID{Unknown, Host, RemoteNode, 255, 256, FirstLocal - 1} {
		if id.IsWorld() {
			t.Errorf("%v is world", id)
		}
	}
	for _, id := range []ID{World, WorldIPv4, WorldIPv6, Unmanaged, FirstLocal, 1<<32 - 1} {
		if !id.IsWorld() || id.IsEndpoint() {
			t.Errorf("%v is not world", id)
		}
	}
	if FirstEndpoint.IsReserved() || !FirstEndpoint.IsEndpoint() || ID(255).IsEndpoint() || !ID(255).IsReserved() {
		t.Error("endpoints do not begin at 256")
	}
}

func FuzzParseLabel(f *testing.F) {
	for _, s := range []string{"app=a", "k8s:a.b/c=d", "reserved:host", "any:a", ":", "=", "a:b:c=d", "cidr:10.0.0.0/8"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := ParseLabel(s)
		if err != nil {
			return
		}
		if again, err := ParseLabel(l.String()); err != nil || again != l {
			t.Fatalf("%q is %v, which is read as %v, %v", s, l, again, err)
		}
		if l.Source == SourceReserved || l.Source == SourceAny {
			t.Fatalf("%q gave %v", s, l)
		}
		if strings.ContainsAny(l.String(), ",\n") {
			t.Fatalf("%q does not fit into a list", s)
		}
	})
}
