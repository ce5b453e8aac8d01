package l7rules

// Audit, as a property of one policy (audit: true), means: what it says is judged and
// recorded, and it never refuses anything. Precisely, for one flow or request, and one
// direction:
//
//   - First every policy is taken as if none audited. What they let through together is
//     FORWARDED: the rules of a policy that audits allow like any other's.
//   - What they refuse together is judged again without what the policies that audit
//     would refuse: their deny rules are left out, and they close no direction. If it is
//     refused even so, it is DROPPED.
//   - Else it is AUDIT, and let through. The record names the deny rule of a policy that
//     audits, if one covers it, or says which rule was nearest to allow it.
//
// So a policy can be taken from audit to enforcement when it leaves no AUDIT record any
// more, and that changes nothing for what was FORWARDED or DROPPED before. To look at
// requests a connection goes through the proxy as without audit; where only policies that
// audit want that (Ruleset.NeverRefuses), what is no request of their protocol goes on,
// too.
//
// Request rules in another protocol than those of a policy that does not audit, for the
// same peer and port, are not judged.
