/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What sockets carry in their own storage, besides their owner (endpoint.h). */
#pragma once
#include "endpoint.h"

/* The namespace of the only endpoint of this instance, for weir_packet, which on 6.1 cannot ask (a cookie). */
volatile const __u64 only_netns;
volatile const __u64 node_netns; /* the proxy's own: its addresses are the host's to endpoints that are namespaces */
volatile const __u32 ingress; /* 0: nobody's ingress is judged, and connections that do not come to the proxy need no entry */

/* On a client's socket: where it wanted to go. On the proxy's accepted socket: the same, copied. On an application's: who the client is. Not
 * inherited by accept(). */
struct {
    __uint(type, BPF_MAP_TYPE_SK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, struct flow);
} redirected SEC(".maps");

/* On the proxy's listening sockets, and so on what they accept: 1. */
struct {
    __uint(type, BPF_MAP_TYPE_SK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
    __type(key, int);
    __type(value, __u32);
} proxy_listeners SEC(".maps");

/* What an unconnected UDP socket sent to of late: one record per socket and destination, not per datagram, and answers from there are not
 * judged again. */
#define SENT_MAX 16
struct sent {
    struct {
        struct addr addr;
        __u32 port;
        __u32 action; /* plus 1; 0 free */
    } to[SENT_MAX];
    __u32 next;
    __u32 pad;
};
struct {
    __uint(type, BPF_MAP_TYPE_SK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, struct sent);
} sent_to SEC(".maps");

static __always_inline int same(const struct addr *a, const struct addr *b) {
    return a->ip[0] == b->ip[0] && a->ip[1] == b->ip[1] && a->ip[2] == b->ip[2] && a->ip[3] == b->ip[3];
}

/* Was there a datagram of this verdict to here before? If not, there is one now. */
static __always_inline int sent_before(struct bpf_sock *sk, const struct addr *dst, __u32 port, __u32 action) {
    struct sent *s = bpf_sk_storage_get(&sent_to, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
    if (!s)
        return 0;
    for (int i = 0; i < SENT_MAX; i++)
        if (s->to[i].port == port && s->to[i].action == action + 1 && same(&s->to[i].addr, dst))
            return 1;
    __u32 n = s->next++ & (SENT_MAX - 1);
    s->to[n].addr = *dst;
    s->to[n].port = port;
    s->to[n].action = action + 1;
    return 0;
}

/* Is a datagram an answer to one that was let through? */
static __always_inline int answers(struct bpf_sock *sk, const struct flow_key *k) {
    struct sent *s = bpf_sk_storage_get(&sent_to, sk, 0, 0);
    if (!s)
        return 0;
    for (int i = 0; i < SENT_MAX; i++)
        if (s->to[i].port == k->lport && s->to[i].action == ACTION_ALLOW + 1 && same(&s->to[i].addr, &k->local))
            return 1;
    return 0;
}
