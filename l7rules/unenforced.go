package l7rules

import (
	"errors"
	"fmt"
)

// Unenforced reports what policies ask for that is decided and explained here, and that no
// proxy enforces yet. Whoever puts policies in force must refuse such ones: their request
// rules would let nothing through, and their names nobody. The error names every place.
func Unenforced(policies []*Policy) error {
	var errs []error
	for _, p := range policies {
		report := func(origin Origin, what string) {
			errs = append(errs, fmt.Errorf("%s: %s: %s not enforced yet, only explained: leave it out", origin, p.FullName(), what))
		}
		for i := range p.Rules {
			r := &p.Rules[i]
			if len(r.Peers.Names) > 0 {
				report(r.Origin, "toFQDNs is")
			}
			for j := range r.Ports {
				pr := &r.Ports[j]
				switch pr.Protocol {
				case DNS, Kafka:
					report(pr.Origin, string(pr.Protocol)+" rules are")
				case TLS:
					report(pr.Origin, "serverNames are")
				}
				for _, h := range pr.HTTP {
					if h.GRPC != "" {
						report(h.Origin, "grpc rules are")
						break
					}
				}
			}
		}
	}
	return errors.Join(errs...)
}
