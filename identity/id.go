package identity

import "strconv"

// ID is a numeric identity: what the kernel's policy map is keyed by. Numbers
// below FirstEndpoint are reserved and have Cilium's values; FirstEndpoint up to
// FirstLocal name endpoints by their labels; from FirstLocal on they name prefixes
// of addresses outside.
type ID uint32

// Reserved identities, numbered as Cilium numbers them. Unknown, the zero value,
// is nobody: no rule lets it through.
const (
	Unknown       ID = 0
	Host          ID = 1 // any address of the machine that no endpoint owns
	World         ID = 2 // the rest
	Unmanaged     ID = 3
	Health        ID = 4
	Init          ID = 5
	RemoteNode    ID = 6
	KubeAPIServer ID = 7
	Ingress       ID = 8
	WorldIPv4     ID = 9
	WorldIPv6     ID = 10
)

// Where the numbers that are given out begin.
const (
	FirstEndpoint ID = 256
	FirstLocal    ID = 1 << 24
)

var reservedNames = [...]string{
	Unknown: "unknown", Host: "host", World: "world", Unmanaged: "unmanaged", Health: "health", Init: "init",
	RemoteNode: "remote-node", KubeAPIServer: "kube-apiserver", Ingress: "ingress",
	WorldIPv4: "world-ipv4", WorldIPv6: "world-ipv6",
}

// IsReserved reports whether id has a fixed meaning.
func (id ID) IsReserved() bool { return id < FirstEndpoint }

// IsEndpoint reports whether id names endpoints, or declared addresses, by labels.
func (id ID) IsEndpoint() bool { return id >= FirstEndpoint && id < FirstLocal }

// IsWorld reports whether id lies outside: world itself, what nothing manages, and
// every prefix.
func (id ID) IsWorld() bool {
	return id == World || id == WorldIPv4 || id == WorldIPv6 || id == Unmanaged || id >= FirstLocal
}

// String is the name of a reserved identity, else the number.
func (id ID) String() string {
	if int(id) < len(reservedNames) {
		return reservedNames[id]
	}
	return strconv.FormatUint(uint64(id), 10)
}

// Labels are the labels that a reserved identity carries, reserved:host for Host;
// a prefix carries reserved:world, as in Cilium. Endpoints have labels of their
// own: for them, and for Unknown, the set is empty.
func (id ID) Labels() Labels {
	switch {
	case id == Unknown || id.IsEndpoint():
		return Labels{}
	case id >= FirstLocal:
		return newLabels([]Label{{Source: SourceReserved, Key: World.String()}})
	case int(id) >= len(reservedNames):
		return Labels{}
	}
	ls := []Label{{Source: SourceReserved, Key: id.String()}}
	if id == WorldIPv4 || id == WorldIPv6 {
		ls = append(ls, Label{Source: SourceReserved, Key: World.String()})
	}
	return newLabels(ls)
}
