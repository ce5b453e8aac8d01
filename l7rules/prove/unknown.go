package prove

import (
	"github.com/weir-proxy/weir/l7rules"
)

// Unknown says that a question was not answered, because that would take too much. It is
// never a proof.
type Unknown struct {
	Reason string
	Origin l7rules.Origin // of the rule to blame; zero where none is
}

func (u *Unknown) Error() string {
	if u.Origin.Line > 0 {
		return u.Reason + ": see " + u.Origin.String()
	}
	return u.Reason
}
