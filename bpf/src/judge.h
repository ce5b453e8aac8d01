/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The kernel's verdict on one connection or datagram, and its record. */
#pragma once
#include "ingress.h"
#include "sockets.h"

/* One verdict in the making. */
struct judged {
    struct addr dst;
    __u64 netns;
    __u32 endpoint;
    __u32 identity; /* the endpoint's */
    __u32 peer;
    __u32 action;
    __u16 dport; /* host byte order */
    __u8 proto;
    __u8 reason;
    __u8 audit;
    __u8 silent; /* nothing was decided: no endpoint, or an endpoint and itself */
    __u8 nobody; /* a loopback destination, and nobody listens there */
};

static __always_inline void record(const struct judged *j) {
    struct event *e = bpf_ringbuf_reserve(&events, sizeof *e, 0);
    if (!e) {
        count(COUNT_EVENTS_LOST);
        return;
    }
    __builtin_memset(e, 0, sizeof *e);
    e->dst = j->dst;
    e->endpoint = j->endpoint;
    e->peer = j->peer;
    e->pid = bpf_get_current_pid_tgid() >> 32;
    e->dport = j->dport;
    e->proto = j->proto;
    e->action = j->action;
    e->reason = j->reason;
    e->audit = j->audit;
    bpf_get_current_comm(e->comm, sizeof e->comm);
    bpf_ringbuf_submit(e, 0);
}

static __always_inline void deny(struct judged *j, __u8 reason) {
    j->action = ACTION_DENY;
    j->reason = reason;
}

/* Finds out who the peer is; false: the verdict is already in j. */
static __always_inline int find_peer(struct bpf_sock_addr *ctx, const struct endpoint *ep, struct judged *j) {
    struct peer_key k = {.prefixlen = 32 + 128, .scope = ep->scope, .addr = j->dst};
    __u32 *id = bpf_map_lookup_elem(&peers, &k);
    if (!id) { /* no address of this namespace */
        k.scope = SCOPE_ADDRESSES;
        id = bpf_map_lookup_elem(&peers, &k);
        if (!id) {
            k.scope = SCOPE_CIDR;
            id = bpf_map_lookup_elem(&peers, &k);
        }
        j->peer = id ? *id : IDENTITY_WORLD;
        return 1;
    }
    j->peer = *id;
    if (ingress && *id == IDENTITY_HOST && j->netns != node_netns && j->proto == IPPROTO_TCP) { /* a cgroup endpoint of the node? */
        struct flow_key at = {.netns = node_netns, .remote = j->dst, .rport = j->dport};
        __u32 other = weir_receiver(&at);
        struct endpoint *o = other ? bpf_map_lookup_elem(&endpoints, &other) : 0;
        if (o)
            j->peer = o->identity;
    } else if (*id != IDENTITY_SELF && j->proto == IPPROTO_TCP) {
        __u32 other = 0;
        enum local l = local_listener(ctx, &j->dst, bpf_htons(j->dport), &other);
        if (l == LOCAL_ENDPOINT) {
            if (other == j->endpoint) {
                j->peer = IDENTITY_SELF;
            } else {
                struct endpoint *o = bpf_map_lookup_elem(&endpoints, &other);
                if (o)
                    j->peer = o->identity;
            }
        } else if (l == LOCAL_NOBODY) {
            /* Any other address of ours may be translated to one where somebody does. */
            j->nobody = is_loopback(&j->dst) || is_any(&j->dst);
        }
    }
    if (j->peer == IDENTITY_SELF) { /* an endpoint always reaches itself */
        j->action = ACTION_ALLOW;
        j->silent = 1;
        return 0;
    }
    return 1;
}

/* Judges a connection or datagram of the socket in ctx to j->dst:j->dport. */
static __always_inline void judge(struct bpf_sock_addr *ctx, struct judged *j) {
    struct bpf_sock *sk = ctx->sk;
    j->action = ACTION_DENY;
    if (!sk) {
        deny(j, REASON_SOCKET);
        return;
    }
    if (bpf_sk_storage_get(&proxy_sockets, sk, 0, 0)) {
        j->action = ACTION_ALLOW;
        j->silent = 1;
        return;
    }
    j->netns = bpf_get_netns_cookie(ctx);
    j->endpoint = owner_of(sk);
    if (!j->endpoint) /* opened before us, or by nobody of ours: whoever uses it answers for it */
        j->endpoint = current_endpoint(j->netns);
    if (!j->endpoint) {
        j->action = ACTION_ALLOW;
        j->silent = 1;
        return;
    }
    struct endpoint *ep = bpf_map_lookup_elem(&endpoints, &j->endpoint);
    if (!ep) {
        deny(j, REASON_UNKNOWN);
        return;
    }
    j->identity = ep->identity;
    if ((ep->flags & NEEDS_PROXY) && !proxy_lives(j->netns)) {
        deny(j, REASON_NO_PROXY);
        return;
    }
    if (!find_peer(ctx, ep, j))
        return;
    j->reason = REASON_POLICY;
    if (!(ep->flags & ENFORCE_EGRESS)) {
        j->action = ACTION_ALLOW;
        return;
    }
    if (j->proto != IPPROTO_TCP && j->proto != IPPROTO_UDP) {
        deny(j, REASON_SOCKET);
        return;
    }
    struct policy_key pk = {
        .prefixlen = POLICY_KEY_BITS,
        .endpoint = j->endpoint,
        .peer = j->peer,
        .direction = EGRESS,
        .proto = j->proto,
        .port = bpf_htons(j->dport),
    };
    struct policy_value *v = bpf_map_lookup_elem(&policy, &pk);
    if (v)
        j->action = v->action;
    if (j->action == ACTION_REDIRECT) {
        if (j->proto != IPPROTO_TCP)
            deny(j, REASON_NOT_TCP);
        else if (is_link_local6(&j->dst))
            deny(j, REASON_LINK_LOCAL);
        else if (j->nobody) /* the proxy could only accept and reset */
            deny(j, REASON_NOBODY_LISTENS);
        else if (!proxy_lives(j->netns))
            deny(j, REASON_NO_PROXY);
    }
    if (j->action == ACTION_DENY && (ep->flags & AUDIT) && j->reason != REASON_NO_PROXY) {
        j->action = ACTION_ALLOW;
        j->audit = 1;
    }
}
