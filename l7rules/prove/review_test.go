package prove

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// TestUselessRulesAreUseless takes all rules of random policies away that are said to
// change nothing, and nothing changes.
func TestUselessRulesAreUseless(t *testing.T) {
	g := generator{rand.New(rand.NewPCG(21, 22)), t}
	taken, kept := 0, 0
	for range 50 / slow {
		policies := g.policies(1 + g.IntN(4))
		for i, p := range policies {
			for j := range p.Rules {
				p.Rules[j].Origin = l7rules.Origin{File: p.Name, Line: 100*i + j + 1}
				list := 0
				for k := range j {
					if p.Rules[k].Direction == p.Rules[j].Direction && p.Rules[k].Deny == p.Rules[j].Deny {
						list++
					}
				}
				p.Rules[j].Index = list
			}
		}
		v := &review{bench: newBench()}
		v.useless(policies, Known{})
		useless := map[l7rules.Origin]bool{}
		for _, f := range v.findings {
			if f.Text == "" || !strings.HasPrefix(f.Path, "spec.") {
				t.Errorf("%+v", f)
			}
			useless[f.Origin] = true
		}
		var less []*l7rules.Policy
		for _, p := range policies {
			c := *p
			c.Rules = nil
			for i := range p.Rules {
				r := &p.Rules[i]
				if useless[r.Origin] {
					c.Closes[r.Direction] = c.Closes[r.Direction] || !p.Open[r.Direction]
					taken++
				} else {
					c.Rules = append(c.Rules, *r)
					kept++
				}
			}
			less = append(less, &c)
		}
		result, err := Diff(policies, less, Known{}, false)
		if err != nil {
			if strings.Contains(err.Error(), "one application protocol") {
				continue
			}
			t.Fatal(err)
		}
		if len(result.Changes) > 0 {
			c := &result.Changes[0]
			t.Fatalf("widened %v: %s -> %s %d-%d %v, without %v", c.Widened, &c.Flow.From, &c.Flow.To, c.First, c.Last, c.Flow.Request, v.findings)
		}
	}
	if taken < 20/slow || kept < 50/slow {
		t.Errorf("%d rules taken away, %d kept", taken, kept)
	}
}

// TestReviewFields looks at where findings say that something is.
func TestReviewFields(t *testing.T) {
	p := &l7rules.Policy{Spec: "specs 2"}
	r := &l7rules.Rule{Direction: flow.Ingress, Deny: true, Index: 3}
	if got := field(p, r); got != "specs[2].ingressDeny[3]" {
		t.Error(got)
	}
	if got := field(&l7rules.Policy{}, nil); got != "spec" {
		t.Error(got)
	}
}
