package run

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/weir-proxy/weir/agent/explain"
	"github.com/weir-proxy/weir/identity"
	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/cnp"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// subject is the command as policies see it.
type subject struct {
	Name     string // "namespace/name"
	Labels   identity.Labels
	Policies []*l7rules.Policy
	Policy   *l7rules.EndpointPolicy // resolved; nil if the policy is to be learned
}

// loadSubject reads the policies and finds what they mean for the command. notes
// are what the user should know although it is no error.
func loadSubject(o Options) (s subject, notes []string, err error) {
	switch {
	case o.Learn != "" && (len(o.Policies) > 0 || o.Audit):
		return s, nil, fmt.Errorf("--learn lets everything through: give it without --policy and --audit")
	case len(o.Policies) == 0 && !o.Audit && o.Learn == "":
		return s, nil, fmt.Errorf("what the command may do is missing: give --policy FILE, --audit to let everything through and see it recorded, or --learn FILE to get a policy of it")
	}
	if s.Labels, err = identity.Workload("", o.Labels...); err != nil {
		return s, nil, err
	}
	s.Name = s.Labels.Namespace() + "/" + filepath.Base(o.Command[0])
	if o.Learn != "" {
		s.Policies, _, err = cnp.Parse("learn", []byte(learnPolicy))
		notes = append(notes, "everything is let through; a policy of it goes to "+o.Learn)
		return s, notes, err
	}
	policies, warnings, err := explain.Join(explain.Load(o.Policies))
	if err != nil {
		return s, nil, err
	}
	for _, w := range warnings {
		notes = append(notes, w.String())
	}
	if err := l7rules.Unenforced(policies); err != nil {
		return s, nil, err
	}
	s.Policies = policies
	if s.Policy, err = l7rules.Compile(policies, s.Labels); err != nil {
		return s, nil, err
	}
	if len(o.Policies) > 0 && !s.Policy.Selected() {
		return s, nil, notSelected(policies, s.Labels)
	}
	if s.Policy.HasRules(flow.Ingress) {
		return s, nil, fmt.Errorf("the policy has ingress rules, which weir run does not judge yet: remove them")
	}
	switch {
	case len(o.Policies) > 0 && !s.Policy.HasRules(flow.Egress):
		notes = append(notes, "egress is open: no document that selects the command has egress rules")
	case len(o.Policies) == 0:
		notes = append(notes, "there is no policy: everything is let through and recorded")
	}
	return s, notes, nil
}

// notSelected explains why no policy is about the command, by the one that is
// nearest to it.
func notSelected(policies []*l7rules.Policy, labels identity.Labels) error {
	var b strings.Builder
	fmt.Fprintf(&b, "no document of the policy selects the command, whose labels are %s", labels)
	var nearest *l7rules.Policy
	var missing []identity.Requirement
	for _, p := range policies {
		m := p.Subject.Missing(labels)
		if nearest == nil || len(m) < len(missing) {
			nearest, missing = p, m
		}
	}
	if nearest == nil {
		b.WriteString(": there are no documents in it")
		return fmt.Errorf("%s", b.String())
	}
	fmt.Fprintf(&b, "\nnearest: %s at %v selects %s", nearest.FullName(), nearest.Origin, nearest.Subject)
	var flags []string
	for _, r := range missing {
		if flag := flagFor(r); flag != "" {
			flags = append(flags, "--label "+flag)
		} else {
			fmt.Fprintf(&b, "\nwhich a label of the command contradicts: %s", r)
		}
	}
	if len(flags) > 0 {
		fmt.Fprintf(&b, "\nadd: %s", strings.Join(flags, " "))
	}
	return fmt.Errorf("%s", b.String())
}

// flagFor is the value of --label that fulfils a requirement, "" if none does.
func flagFor(r identity.Requirement) string {
	key := r.Key
	if r.Source != identity.SourceAny && r.Source != identity.SourceK8s {
		key = r.Source + ":" + key
	}
	switch r.Op {
	case identity.In:
		return key + "=" + r.Values[0]
	case identity.Exists:
		return key
	}
	return ""
}
