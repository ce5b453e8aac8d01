package explain

import (
	"errors"
	"fmt"
	"io"

	"github.com/weir-proxy/weir/l7rules/prove"
)

// Proof is what became of a claim.
type Proof struct {
	Claim   string // "never from app=ci to app=db"
	Query   Query
	Answer  *Answer // to Query: what gets through although it should not; nil without one
	Unknown string  // why there is no answer, "" where there is one
}

// IsUnknown reports whether an error says that an answer would take too much.
func IsUnknown(err error) bool {
	_, ok := errors.AsType[*prove.Unknown](err)
	return ok
}

// Proved reports whether the claim holds.
func (p *Proof) Proved() bool { return p.Answer == nil && p.Unknown == "" }

// Prove answers whether claims hold. An error says what is wrong with a claim, or with the
// policies taken together.
func (s *Set) Prove(never, only []string) ([]Proof, error) {
	known := knownOf(s.config, s.only)
	var claims []*prove.Claim
	for _, list := range []struct {
		flag  string
		texts []string
		only  bool
	}{{"--never", never, false}, {"--only", only, true}} {
		for _, text := range list.texts {
			c, err := prove.ParseClaim(text, list.only, known)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", list.flag, err)
			}
			claims = append(claims, c)
		}
	}
	found, err := prove.Prove(s.policies, claims, known)
	if err != nil {
		return nil, err
	}
	var proofs []Proof
	for _, f := range found {
		p := Proof{Claim: f.Describe()}
		switch {
		case f.Flow != nil:
			if p.Query, err = queryOf(f.Flow); err != nil {
				return nil, err
			}
			answer, err := s.Ask(p.Query)
			switch {
			case err != nil:
				p.Unknown = fmt.Sprintf("ask about %s: %v", p.Query.Command(), err)
			case !answer.through():
				p.Unknown = fmt.Sprintf("weir policy explain does not confirm that %s gets through: please report this", p.Query.Command())
			default:
				p.Answer = answer
			}
		case f.Unknown != nil:
			p.Unknown = f.Unknown.Error()
		}
		proofs = append(proofs, p)
	}
	return proofs, nil
}

// WriteText writes the answer and the claim on one line; then, if something contradicts
// it, what explain says of that.
func (p *Proof) WriteText(w io.Writer) error {
	var err error
	switch {
	case p.Answer != nil:
		if _, err = fmt.Fprintf(w, "DISPROVED: %s\n", p.Claim); err == nil {
			err = p.Answer.WriteText(w)
		}
	case p.Unknown != "":
		_, err = fmt.Fprintf(w, "UNKNOWN: %s\n%s\n", p.Claim, p.Unknown)
	default:
		_, err = fmt.Fprintf(w, "PROVED: %s\n", p.Claim)
	}
	if err != nil {
		return fmt.Errorf("write proof: %w", err)
	}
	return nil
}

// WriteProofs writes all as one JSON object and a line end.
func WriteProofs(w io.Writer, proofs []Proof) error {
	type proof struct {
		Claim   string  `json:"claim"`
		Result  string  `json:"result"`
		Query   *Query  `json:"query,omitempty"`
		Answer  *Answer `json:"answer,omitempty"`
		Unknown string  `json:"unknown,omitempty"`
	}
	out := struct {
		Proofs []proof `json:"proofs"`
	}{[]proof{}}
	for i := range proofs {
		p := &proofs[i]
		j := proof{Claim: p.Claim, Result: "PROVED", Answer: p.Answer, Unknown: p.Unknown}
		switch {
		case p.Answer != nil:
			j.Result, j.Query = "DISPROVED", &p.Query
		case p.Unknown != "":
			j.Result = "UNKNOWN"
		}
		out.Proofs = append(out.Proofs, j)
	}
	return writeJSON(w, out)
}
