package cilium

import (
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/cilium/cilium/pkg/crypto/certificatemanager"
	envoypolicy "github.com/cilium/cilium/pkg/envoy/policy"
	ciliumidentity "github.com/cilium/cilium/pkg/identity"
	"github.com/cilium/cilium/pkg/identity/identitymanager"
	k8sconst "github.com/cilium/cilium/pkg/k8s/apis/cilium.io"
	"github.com/cilium/cilium/pkg/labels"
	"github.com/cilium/cilium/pkg/option"
	"github.com/cilium/cilium/pkg/policy"
	"github.com/cilium/cilium/pkg/policy/api"
	"github.com/cilium/cilium/pkg/u8proto"

	"github.com/weir-proxy/weir/l7rules"
	"github.com/weir-proxy/weir/l7rules/flow"
)

// configure sets Cilium's global options, once per process: its defaults, two address
// families, and a host that policies judge like any peer, as it is outside
// Kubernetes.
func configure() {
	api.InitEntities(clusterName)
	option.Config.EnableIPv4, option.Config.EnableIPv6 = true, true
	option.Config.EnableL7Proxy = true
	option.Config.AllowLocalhost = option.AllowLocalhostPolicy
	policy.SetPolicyEnabled(option.DefaultEnforcement)
}

// theirs is Cilium's policy repository with one set of documents in it.
type theirs struct {
	logger     *slog.Logger
	repo       *policy.Repository
	identities map[*endpoint]*ciliumidentity.Identity
	prefixes   map[netip.Prefix]ciliumidentity.NumericIdentity
	named      map[netip.Addr]ciliumidentity.NumericIdentity
	resolved   map[*endpoint]*policy.EndpointPolicy
}

func newTheirs(logger *slog.Logger, docs []*accepted) *theirs {
	t := &theirs{logger: logger, identities: map[*endpoint]*ciliumidentity.Identity{},
		prefixes: map[netip.Prefix]ciliumidentity.NumericIdentity{}, named: map[netip.Addr]ciliumidentity.NumericIdentity{}, resolved: map[*endpoint]*policy.EndpointPolicy{}}
	manager := identitymanager.NewIDManager(logger)
	translator := envoypolicy.NewEnvoyL7RulesTranslator(logger, certificatemanager.NewMockSecretManagerNotFound())
	t.repo = policy.NewPolicyRepository(logger, nil, nil, translator, manager, noMetrics{})

	all := ciliumidentity.IdentityMap{}
	ciliumidentity.IterateReservedIdentities(func(id ciliumidentity.NumericIdentity, i *ciliumidentity.Identity) { all[id] = i.LabelArray })
	for _, ep := range endpoints {
		set := labels.Labels{}
		for _, l := range ep.labels.All() {
			set[l.Key] = labels.NewLabel(l.Key, l.Value, l.Source)
		}
		name := k8sconst.PodNamespaceMetaLabelsPrefix + "kubernetes.io/metadata.name"
		set[name] = labels.NewLabel(name, ep.labels.Namespace(), labels.LabelSourceK8s)
		set[k8sconst.PolicyLabelCluster] = labels.NewLabel(k8sconst.PolicyLabelCluster, clusterName, labels.LabelSourceK8s)
		id := ciliumidentity.NewIdentity(ciliumidentity.NumericIdentity(ep.id), set)
		t.identities[ep] = id
		all[id.ID] = id.LabelArray
	}
	for _, doc := range docs {
		for _, prefix := range policy.GetCIDRPrefixes(doc.entries) {
			t.allocate(prefix.Masked(), all)
		}
	}
	t.allocateNames(docs, all)
	var notified sync.WaitGroup
	t.repo.GetSelectorCache().UpdateIdentities(all, nil, &notified)
	t.repo.GetSubjectSelectorCache().UpdateIdentities(all, nil, &notified)
	notified.Wait()
	for _, doc := range docs {
		t.repo.ReplaceByResource(doc.entries, doc.resource)
	}
	for _, id := range t.identities {
		manager.Add(id)
	}
	return t
}

// allocate gives a prefix its identity, as the ipcache does.
func (t *theirs) allocate(prefix netip.Prefix, all ciliumidentity.IdentityMap) {
	if _, ok := t.prefixes[prefix]; ok || prefix.Bits() == 0 {
		return // the world has an identity
	}
	id := ciliumidentity.IdentityScopeLocal | ciliumidentity.NumericIdentity(len(t.prefixes)+1)
	t.prefixes[prefix] = id
	all[id] = labels.GetCIDRLabels(prefix).LabelArray()
}

// allocateNames gives each address with a name that some selector matches an identity of
// its own, as the name manager does: with the labels of the selectors beside those of
// the longest prefix around it.
func (t *theirs) allocateNames(docs []*accepted, all ciliumidentity.IdentityMap) {
	for _, addr := range slices.SortedFunc(maps.Keys(names), netip.Addr.Compare) {
		set := maps.Clone(all[t.identity(peer{addr: addr})].Labels())
		matched := false
		for _, doc := range docs {
			for _, entry := range doc.entries {
				for _, selector := range entry.L3 {
					fqdn, ok := selector.GetFQDNSelector()
					if !ok {
						continue
					}
					re, err := fqdn.ToRegex()
					if err != nil {
						panic(err) // it was validated
					}
					if slices.ContainsFunc(names[addr], func(name string) bool { return re.MatchString(name + ".") }) {
						label := fqdn.IdentityLabel()
						set["fqdn:"+label.Key] = label
						matched = true
					}
				}
			}
		}
		if matched {
			id := ciliumidentity.IdentityScopeLocal | ciliumidentity.NumericIdentity(1<<16+len(t.named)+1)
			t.named[addr] = id
			all[id] = set.LabelArray()
		}
	}
}

// identity of a peer: the one of the longest prefix for an address outside.
func (t *theirs) identity(p peer) ciliumidentity.NumericIdentity {
	switch {
	case p.endpoint != nil:
		return t.identities[p.endpoint].ID
	case !p.addr.IsValid():
		return ciliumidentity.NumericIdentity(p.entity)
	}
	if id, ok := t.named[p.addr]; ok {
		return id
	}
	longest := -1
	id := ciliumidentity.ReservedIdentityWorldIPv6
	if p.addr.Is4() {
		id = ciliumidentity.ReservedIdentityWorldIPv4
	}
	for prefix, of := range t.prefixes {
		if prefix.Contains(p.addr) && prefix.Bits() > longest {
			longest, id = prefix.Bits(), of
		}
	}
	return id
}

// policy resolves what selects a subject down to the entries of the BPF map.
func (t *theirs) policy(subject *endpoint) (*policy.EndpointPolicy, error) {
	if epp, ok := t.resolved[subject]; ok {
		return epp, nil
	}
	owner := owner(subject.id)
	selected, _, err := t.repo.GetSelectorPolicy(t.identities[subject], 0, noStatistics{}, owner.GetID())
	if err != nil {
		return nil, err
	}
	redirects := map[string]uint16{}
	for filter, tuple := range selected.RedirectFilters() {
		id := policy.ProxyID(uint16(owner.GetID()), filter.Ingress, string(filter.Protocol), filter.Port, tuple.Policy.GetListener())
		redirects[id] = 10000 // which proxy makes no difference
	}
	epp := selected.DistillPolicy(t.logger, owner, redirects)
	if err := epp.Ready(); err != nil {
		return nil, err
	}
	epp.Detach(t.logger)
	t.resolved[subject] = epp
	return epp, nil
}

func (t *theirs) judge(c *connection) (verdict, error) {
	epp, err := t.policy(c.subject)
	if err != nil {
		return verdict{}, err
	}
	key, direction := policy.EgressKey(), &epp.SelectorPolicy.L4Policy.Egress
	if c.direction == flow.Ingress {
		key, direction = policy.IngressKey(), &epp.SelectorPolicy.L4Policy.Ingress
	}
	id := t.identity(c.peer)
	port := c.port
	if c.proto == uint8(u8proto.ICMP) {
		port = 8 // what it looks up in place of a port: the type, here of an echo request
	}
	entry, rule, _ := epp.Lookup(key.WithIdentity(id).WithPortProto(u8proto.U8proto(c.proto), port))
	if !entry.IsValid() {
		return verdict{}, errors.New("invalid entry")
	}
	v := verdict{allowed: !entry.IsDeny(), proxied: !entry.IsDeny() && entry.IsRedirectEntry(), why: string(rule.LabelArrayListString())}
	for _, r := range c.requests {
		ok := v.allowed
		byAll := ok
		if v.proxied {
			switch r := r.(type) {
			case *l7rules.HTTPRequest:
				ok = envoyAllows(direction.PortRules, id, c.port, r)
				byAll = ok
			case *l7rules.DNSQuery:
				ok, byAll = dnsProxyAllows(direction.PortRules, id, c.proto, c.port, r)
			}
		}
		v.requests, v.byAll = append(v.requests, ok), append(v.byAll, byAll)
	}
	return v, nil
}
