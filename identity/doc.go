// Package identity says who a peer is: labels, selectors over them, numeric
// identities, and which address belongs to which identity.
package identity
