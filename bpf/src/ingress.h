/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The receiver's side: who listens, who comes, and may they. Used by sk_lookup for the SYN, by cgroup_skb for what got past it, and by
 * sockops when the handshake is done. */
#pragma once
#include "maps.h"

/* The one who would accept a connection to k, in the order of Linux's own lookup: the address, IPv4 any, IPv6 any if dual; k becomes that
 * one's. 0 nobody. */
static __always_inline struct lport *who_listens(struct lport_key *k) {
    int v4 = is_mapped(&k->local);
    struct lport *v = bpf_map_lookup_elem(&listening, k);
    if (v && v->refs > 0)
        return v;
    if (v4) {
        k->local.ip[3] = 0;
        v = bpf_map_lookup_elem(&listening, k);
        if (v && v->refs > 0)
            return v;
    }
    k->local.ip[0] = 0;
    k->local.ip[1] = 0;
    k->local.ip[2] = 0;
    k->local.ip[3] = 0;
    v = bpf_map_lookup_elem(&listening, k);
    if (v && v->refs > 0 && (!v4 || v->dual))
        return v;
    return 0;
}

/* The functions below that are not inlined are global ones: the verifier looks at each once, instead of once on every way that leads there.
 * weir_steer is verified for every namespace. */

/* The endpoint that would accept a connection as its sender sees it, 0 none. A listener that nobody of ours opened is whose process holds it,
 * or its namespace's. */
__attribute__((noinline)) __u32 weir_receiver(const struct flow_key *k) {
    struct lport_key at = {};
    struct lport *l;
    __u32 *e;
    if (!k)
        return 0;
    at.netns = k->netns;
    at.local = k->remote;
    at.port = k->rport;
    l = who_listens(&at);
    if (!l)
        return 0;
    if (l->endpoint)
        return l->endpoint;
    e = bpf_map_lookup_elem(&inherited, &at);
    if (!e)
        e = bpf_map_lookup_elem(&by_netns, &at.netns);
    return e ? *e : 0;
}

/* The identity of a sender's address: the host, a prefix, the world, or the endpoint itself; never another endpoint. */
__attribute__((noinline)) __u32 weir_sender_by_address(const struct addr *addr, __u32 scope) {
    struct peer_key k = {.prefixlen = 32 + 128, .scope = scope};
    __u32 *id;
    if (!addr)
        return IDENTITY_WORLD;
    k.addr = *addr;
    id = bpf_map_lookup_elem(&peers, &k);
    if (!id) {
        k.scope = SCOPE_CIDR;
        id = bpf_map_lookup_elem(&peers, &k);
    }
    return id ? *id : IDENTITY_WORLD;
}

/* What the policy says of a peer at a port (host byte order) of an endpoint. */
__attribute__((noinline)) __u32 weir_ingress_action(__u32 endpoint, __u32 peer, __u32 proto, __u32 port) {
    struct policy_key k = {
        .prefixlen = POLICY_KEY_BITS,
        .endpoint = endpoint,
        .peer = peer,
        .direction = INGRESS,
        .proto = proto,
        .port = bpf_htons(port),
    };
    struct policy_value *v = bpf_map_lookup_elem(&policy, &k);
    return v ? v->action : ACTION_DENY;
}

/* One connection or datagram on its way in. */
struct arrival {
    struct flow_key k; /* as the sender sees it */
    struct flow *sender; /* 0: no endpoint's */
    __u32 endpoint; /* the receiver */
    __u32 identity;
    __u32 peer;
    __u32 action;
    __u32 isn; /* of the SYN, if it was seen */
    __u8 proto;
    __u8 reason;
    __u8 audit;
    __u8 silent;
    __u8 seen;
    __u8 pad[3];
};

/* What the connecting socket wrote, if it is in this namespace; else what one of another namespace of this machine did, unless two did. Somebody
 * else may send from the same address and port, on another network with the same addresses or by packets of his own making. He does not know
 * the sequence number: where the SYN was seen, he is told apart by that. */
static __always_inline struct flow *flow_of_sender(const struct arrival *a) {
    struct flow *f = bpf_map_lookup_elem(&flows, &a->k);
    if (!f) {
        struct flow_key any = a->k;
        any.netns = 0;
        f = bpf_map_lookup_elem(&flows, &any);
        if (!f || f->claims != 1 || !f->cookie || f->netns == a->k.netns)
            return 0;
    }
    return a->seen && a->isn != f->isn ? 0 : f;
}

/* Finds a->peer. A sender that no socket of ours stands for is what its address says: the host, a prefix, the world; never an endpoint. */
static __always_inline void find_sender(struct arrival *a, const struct endpoint *ep) {
    a->sender = a->proto == IPPROTO_TCP ? flow_of_sender(a) : 0;
    if (a->sender && a->sender->endpoint) {
        a->peer = a->sender->endpoint == a->endpoint ? IDENTITY_SELF : a->sender->identity;
        return;
    }
    a->peer = weir_sender_by_address(&a->k.local, ep->scope);
}

/* Judges an arrival at a->endpoint. */
static __always_inline void judge_ingress(struct arrival *a) {
    struct endpoint *ep = bpf_map_lookup_elem(&endpoints, &a->endpoint);
    a->action = ACTION_DENY;
    if (!ep) {
        a->reason = REASON_UNKNOWN;
        return;
    }
    a->identity = ep->identity;
    find_sender(a, ep);
    if ((a->sender && a->sender->kind == KIND_UPSTREAM && a->sender->judged == a->endpoint) || a->peer == IDENTITY_SELF || !(ep->flags & ENFORCE_INGRESS)) {
        a->action = ACTION_ALLOW;
        a->silent = 1;
        return;
    }
    a->reason = REASON_POLICY;
    a->action = weir_ingress_action(a->endpoint, a->peer, a->proto, a->k.rport);
    if (a->action == ACTION_REDIRECT && a->proto != IPPROTO_TCP) {
        a->action = ACTION_DENY;
        a->reason = REASON_NOT_TCP;
    }
    if (a->action == ACTION_DENY && (ep->flags & AUDIT)) {
        a->action = ACTION_ALLOW;
        a->audit = 1;
    }
}

static __always_inline void record_arrival(const struct arrival *a) {
    struct event *e = bpf_ringbuf_reserve(&events, sizeof *e, 0);
    if (!e) {
        count(COUNT_EVENTS_LOST);
        return;
    }
    __builtin_memset(e, 0, sizeof *e);
    e->src = a->k.local;
    e->dst = a->k.remote;
    e->endpoint = a->endpoint;
    e->peer = a->peer;
    e->sport = a->k.lport;
    e->dport = a->k.rport;
    e->proto = a->proto;
    e->action = a->action;
    e->reason = a->reason;
    e->audit = a->audit;
    e->direction = INGRESS;
    if (a->sender) {
        e->pid = a->sender->pid;
        __builtin_memcpy(e->comm, a->sender->comm, sizeof e->comm);
    }
    bpf_ringbuf_submit(e, 0);
}
