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
		text += "the connection goes through the proxy: ask about a request with --http 'METHOD PATH'\n"
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

// WriteJSON writes one object and a line end.
func (a *Answer) WriteJSON(w io.Writer) error {
	type side struct {
		Judged  bool   `json:"judged"`
		Verdict string `json:"verdict"`
		Policy  string `json:"policy,omitempty"`
		Origin  string `json:"origin,omitempty"`
		Reason  string `json:"reason,omitempty"`
		Nearest string `json:"nearest,omitempty"`
	}
	convert := func(s Side) *side {
		if s == (Side{}) {
			return nil
		}
		return &side{s.Judged, s.Verdict.String(), s.Policy, s.Origin.String(), s.Reason, s.Nearest.String()}
	}
	out := struct {
		Verdict string          `json:"verdict"`
		From    string          `json:"from"`
		To      string          `json:"to"`
		Proto   string          `json:"protocol"`
		Port    uint16          `json:"port"`
		Proxy   bool            `json:"proxy"`
		Request json.RawMessage `json:"request,omitempty"`
		Egress  *side           `json:"egress,omitempty"`
		Ingress *side           `json:"ingress,omitempty"`
	}{Verdict: a.Verdict.String(), From: a.From, To: a.To, Proto: a.Protocol, Port: a.Port, Proxy: a.Proxy, Egress: convert(a.Egress), Ingress: convert(a.Ingress)}
	if a.Request != nil {
		out.Request = a.Request.AppendJSON(nil)
	}
	data, err := json.Marshal(out)
	if err != nil {
		return fmt.Errorf("write answer: %w", err)
	}
	_, err = w.Write(append(data, '\n'))
	return err
}
