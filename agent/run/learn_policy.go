package run

// learnPolicy lets everything through, and has every connection looked at for HTTP.
const learnPolicy = `apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: learn}
spec:
  endpointSelector: {}
  egress:
  - toPorts:
    - ports: [{port: "1", endPort: 65535, protocol: TCP}]
      rules: {http: [{}]}
  - toEntities: [all]
`
