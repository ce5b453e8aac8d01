package prove

import (
	"strings"
	"testing"

	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules"
)

var someone = Known{Workloads: []End{{ID: identity.FirstEndpoint, Name: "shop/a"}}, Addresses: []DeclaredAddress{{Name: "shop/db"}}}

func TestParseClaim(t *testing.T) {
	for text, want := range map[string]string{
		"from app=a":                             "",
		"to app=a from host tcp/80-90":           "",
		"from shop/a to shop/db":                 "",
		"from any to *.example.com udp dns *":    "",
		`to app=a http GET "/a b" header "X: y"`: "",
		"from app=a kafka produce tcp/9092":      "",
		"from app=a kafka * group:g*":            "",
		"":                                       "write from WHO to WHO",
		"tcp":                                    "write from WHO to WHO",
		"from shop/db":                           "is neither labels",
		"from *.example.com":                     "is neither labels",
		"from none":                              "nobody is none here",
		"from app=a,":                            "empty key",
		"from app=a;b=c tcp/":                    "write tcp/PORT",
		"from app=a tcp/9-8":                     "write tcp/PORT",
		"from app=a tcp udp":                     "",
		"from app=a http GET":                    "write http METHOD PATH",
		"from app=a http GET / http GET /":       "there twice",
		"from app=a grpc x":                      "write grpc",
		"from app=a kafka fetch group:":          "write topic:NAME",
		"from app=a dns a..b":                    "two dots",
		"from app=a udp kafka fetch":             "goes over tcp",
	} {
		if text == "from app=a tcp udp" {
			want = "is there twice"
		}
		_, err := ParseClaim(text, false, someone)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	c, err := ParseClaim("to app=a from app=b tcp/80 http GET /", true, Known{})
	if err != nil || !c.ToFirst || c.Proto != l7rules.ProtoTCP || c.First != 80 || c.Last != 80 || c.Requests == nil {
		t.Errorf("%+v, %v", c, err)
	}
}

// FuzzParseClaim looks for a claim that is taken and that nothing can be asked about.
func FuzzParseClaim(f *testing.F) {
	for _, s := range []string{
		"from app=a to app=b", `to app=db from app=api tcp/80-90 http GET|HEAD /a.* host a\.test header "X-A: 1"`, "from !a,b!=c,d to 10.0.0.0/8",
		"from shop/a to shop/db kafka produce orders*", "from host to app=a grpc a.B/C", "to app=a dns *.test", "from world to app=a sni **", `from "a=`,
	} {
		f.Add(s)
	}
	p := &l7rules.Policy{Name: "p", Rules: []l7rules.Rule{{AnyPort: true, Peers: l7rules.Peers{Any: true}}}}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseClaim(s, len(s)%2 == 0, someone)
		if err != nil {
			if c != nil {
				t.Fatalf("%q: %+v and %v", s, c, err)
			}
			return
		}
		proofs, err := Prove([]*l7rules.Policy{p}, []*Claim{c}, someone)
		if err == nil && (len(proofs) != 1 || proofs[0].Flow != nil && proofs[0].Unknown != nil) {
			t.Fatalf("%q: %+v", s, proofs)
		}
	})
}
