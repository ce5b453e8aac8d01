// Package prove answers questions about everything that policies let through: whether
// two sets of them differ, and whether anything gets through that never should. It looks
// at every case, not at samples: senders and receivers fall into finitely many kinds, by
// the selectors and prefixes that can tell them apart; ports into ranges, by the tables'
// boundaries; requests into classes, by the patterns that match them together. One witness
// of each is judged by the decisions that the proxy makes.
//
// What it takes as given: an endpoint has at most one label of a key, whatever its source,
// unless the caller names it; labels of namespaces are independent of the namespace's name,
// unless the caller names it; a request is one that the proxy would hand to rules, in its
// canonical form. Protocols other than TCP, UDP and SCTP are left out, and so is what an
// endpoint says to itself, which no policy judges.
//
// Where an answer would take too much, it is an Unknown that names a rule, never a proof.
package prove
