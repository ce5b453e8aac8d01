package httpproxy

import (
	"fmt"
	"slices"

	"github.com/weir-proxy/weir/l7rules"
)

// Canonical reads one request's head, from its request line to the empty line, and
// returns what rules see of it. The error says why the proxy would refuse it before any
// rule was asked. It is for those who ask what a policy means; a connection's requests
// do not come this way.
func Canonical(head []byte) (*l7rules.HTTPRequest, error) {
	var r request
	b := slices.Clone(head)
	n, err := r.parse(b)
	if err != nil {
		return nil, err
	}
	if n != len(b) {
		return nil, fmt.Errorf("%d bytes follow the head", len(b)-n)
	}
	return &r.HTTPRequest, nil
}
