package l7rules

import (
	"bytes"
	"fmt"
	"regexp"

	"github.com/weir-proxy/weir/l7rules/flow"
	"github.com/weir-proxy/weir/l7rules/match"
)

// GRPCRequest is a call as rules see it: the HTTP request that carries it, POST
// /pkg.Service/Method. Rules for gRPC and for HTTP judge it alike.
type GRPCRequest struct{ HTTPRequest }

var _ flow.Request = (*GRPCRequest)(nil)

// Type implements flow.Request.
func (*GRPCRequest) Type() string { return "grpc-request" }

// Call is "pkg.Service" and "Method"; nothing where the path is not that of a call.
func (r *GRPCRequest) Call() (service, method []byte) {
	path, ok := bytes.CutPrefix(r.Path, []byte("/"))
	service, method, found := bytes.Cut(path, []byte("/"))
	if !ok || !found || len(service) == 0 || len(method) == 0 || bytes.ContainsAny(method, "/?") {
		return nil, nil
	}
	return service, method
}

// AppendText implements flow.Request: "gRPC pkg.Service/Method".
func (r *GRPCRequest) AppendText(dst []byte) []byte {
	dst = append(dst, "gRPC "...)
	service, method := r.Call()
	if service == nil {
		return flow.AppendEscaped(dst, r.Path)
	}
	dst = append(flow.AppendEscaped(dst, service), '/')
	return flow.AppendEscaped(dst, method)
}

// NewGRPCRule makes the rule for a service and method, each exact, or "*" or "" for any.
// The service has its package before it: "pkg.Service".
func NewGRPCRule(origin Origin, service, method string) (HTTPRule, error) {
	part := func(s string) (text, expr string) {
		if s == "" || s == "*" {
			return "*", "[^/?]+"
		}
		return s, regexp.QuoteMeta(s)
	}
	serviceText, serviceExpr := part(service)
	methodText, methodExpr := part(method)
	post, err := match.Compile("POST")
	if err != nil {
		return HTTPRule{}, fmt.Errorf("make rule for gRPC: %w", err)
	}
	path, err := match.Compile("/" + serviceExpr + "/" + methodExpr)
	if err != nil {
		return HTTPRule{}, fmt.Errorf("make rule for gRPC: %w", err)
	}
	return HTTPRule{Origin: origin, Method: post, Path: path, GRPC: serviceText + "/" + methodText}, nil
}
