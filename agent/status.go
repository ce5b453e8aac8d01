package agent

import "time"

// Status is what a running agent says of itself. Its JSON form is what
// `weir status -o json` prints; names in it are kept from then on.
type Status struct {
	Version    string           `json:"version"`
	PID        int              `json:"pid"`
	Started    time.Time        `json:"started"`
	Endpoints  []EndpointStatus `json:"endpoints"`  // by name
	Identities []IdentityStatus `json:"identities"` // by number
	Policy     PolicyStatus     `json:"policy"`
	Counters   Counters         `json:"counters"`
}

// EndpointState says whether an endpoint is under its policies. The zero value is
// waiting.
type EndpointState string

// States of endpoints.
const (
	// Waiting endpoints have no namespace or cgroup yet: there is nobody to judge.
	Waiting EndpointState = "waiting"
	// Ready endpoints are judged as their policies say.
	Ready EndpointState = "ready"
	// Refused endpoints are not looked after, for the reason given: their traffic is
	// not judged here.
	Refused EndpointState = "refused"
	// Unconfined endpoints are judged, but their processes may hold capabilities that
	// let them change packets afterwards; the configuration names them so.
	Unconfined EndpointState = "unconfined"
)

// EndpointStatus is one workload.
type EndpointStatus struct {
	Name     string        `json:"name"`     // "namespace/name"
	ID       uint32        `json:"id"`       // 0 while there is none
	Identity uint32        `json:"identity"` // 0 while there is none
	Labels   []string      `json:"labels"`   // source:key=value, sorted
	Place    string        `json:"place"`    // "netns /run/netns/a", "pid 1234", "cgroup /system.slice/a.service", "docker 0123456789ab"
	State    EndpointState `json:"state"`
	Reason   string        `json:"reason,omitempty"` // why it waits or is refused; for a ready one, what is wrong with it
	Egress   SideStatus    `json:"egress"`
	Ingress  SideStatus    `json:"ingress"`
}

// SideStatus is one direction of an endpoint.
type SideStatus struct {
	// Enforced says that policies close the direction for what they do not name. An
	// endpoint with a direction that is not enforced is open in it.
	Enforced bool `json:"enforced"`
	// Policies are those with rules for the direction, as policy names in records.
	Policies []string `json:"policies,omitempty"`
}

// Kinds of identities.
const (
	KindReserved = "reserved" // host, world and their like
	KindEndpoint = "endpoint" // labels of workloads
	KindAddress  = "address"  // labels of declared addresses
	KindPrefix   = "prefix"   // addresses outside that a policy names
)

// IdentityStatus is one number that the kernel knows peers by.
type IdentityStatus struct {
	ID        uint32   `json:"id"`
	Kind      string   `json:"kind"`
	Labels    []string `json:"labels"`
	Endpoints []string `json:"endpoints,omitempty"` // names of the workloads that have it
	CIDRs     []string `json:"cidrs,omitempty"`
}

// PolicyStatus is the set of policies in force, and what stands in the way of a newer
// one.
type PolicyStatus struct {
	Revision  uint64           `json:"revision"` // counts the sets that were put in force
	Applied   time.Time        `json:"applied,omitzero"`
	Documents []PolicyDocument `json:"documents"`
	// Error is why the files as they are now are not in force; then the set is the last
	// one that could be read. Since is when that began. Both are the loader's to fill.
	Error string    `json:"error,omitempty"`
	Since time.Time `json:"since,omitzero"`
}

// PolicyDocument is one spec of a policy file.
type PolicyDocument struct {
	Name      string   `json:"name"`           // "namespace/name", "name" of a clusterwide one
	Spec      string   `json:"spec,omitempty"` // which, of a document with several
	Origin    string   `json:"origin"`         // file:line:column
	Selector  string   `json:"selector"`
	Egress    int      `json:"egress"` // rules, deny rules included
	Ingress   int      `json:"ingress"`
	Endpoints []string `json:"endpoints"` // names of the workloads it selects
}

// Counters are of what has happened since the agent started.
type Counters struct {
	EventsLost  uint64 `json:"eventsLost"`  // decisions of the kernel whose records are missing
	RecordsLost uint64 `json:"recordsLost"` // records that the log was too slow for, since it was opened
	// MapsFull counts, by the map's name, what was refused because there was no room.
	MapsFull map[string]uint64 `json:"mapsFull,omitempty"`
}
