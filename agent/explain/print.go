package explain

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/weir-proxy/weir/l7rules/flow"
)

// WriteText writes the verdict alone on the first line, then why.
func (a *Answer) WriteText(w io.Writer) error {
	text := a.Verdict.String() + "\n"
	what := fmt.Sprintf("%s -> %s %s/%d", a.From, a.To, a.Protocol, a.Port)
	if a.Request != nil {
		what += " (" + string(a.Request.AppendText(nil)) + ")"
	}
	text += what + "\n"
	text += a.Egress.text("egress of " + a.From)
	if a.Ingress != (Side{}) {
		text += a.Ingress.text("ingress of " + a.To)
	}
	if a.Verdict == flow.Forwarded && a.Proxy && a.Request == nil {
		text += "the connection goes through the proxy: ask about a request with --http, --grpc, --dns, --sni or --kafka\n"
	}
	_, err := io.WriteString(w, text)
	return err
}

func (s *Side) text(name string) string {
	if !s.Judged {
		return name + ": " + s.Reason + "\n"
	}
	text := name + ": " + s.Verdict.String()
	if s.Policy != "" {
		text += " policy=" + s.Policy
		if s.Origin.Line > 0 {
			text += " at " + s.Origin.String()
		}
	}
	if s.Reason != "" {
		text += ": " + s.Reason
	}
	if s.Nearest.Line > 0 {
		text += " (" + s.Nearest.String() + ")"
	}
	return text + "\n"
}

type jsonSide struct {
	Judged  bool   `json:"judged"`
	Verdict string `json:"verdict"`
	Policy  string `json:"policy,omitempty"`
	Origin  string `json:"origin,omitempty"`
	Reason  string `json:"reason,omitempty"`
	Nearest string `json:"nearest,omitempty"`
}

// MarshalJSON gives the verdict, both sides, and of each the rule and the reason.
func (a *Answer) MarshalJSON() ([]byte, error) {
	convert := func(s Side) *jsonSide {
		if s == (Side{}) {
			return nil
		}
		return &jsonSide{s.Judged, s.Verdict.String(), s.Policy, s.Origin.String(), s.Reason, s.Nearest.String()}
	}
	out := struct {
		Verdict string          `json:"verdict"`
		From    string          `json:"from"`
		To      string          `json:"to"`
		Proto   string          `json:"protocol"`
		Port    uint16          `json:"port"`
		Proxy   bool            `json:"proxy"`
		Request json.RawMessage `json:"request,omitempty"`
		Egress  *jsonSide       `json:"egress,omitempty"`
		Ingress *jsonSide       `json:"ingress,omitempty"`
	}{Verdict: a.Verdict.String(), From: a.From, To: a.To, Proto: a.Protocol, Port: a.Port, Proxy: a.Proxy, Egress: convert(a.Egress), Ingress: convert(a.Ingress)}
	if a.Request != nil {
		out.Request = a.Request.AppendJSON(nil)
	}
	return json.Marshal(out)
}

// WriteJSON writes one object and a line end.
func (a *Answer) WriteJSON(w io.Writer) error { return writeJSON(w, a) }

func writeJSON(w io.Writer, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write answer: %w", err)
	}
	if _, err = w.Write(append(data, '\n')); err != nil {
		return fmt.Errorf("write answer: %w", err)
	}
	return nil
}
