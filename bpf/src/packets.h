/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Packets of endpoints' sockets, as cgroup_skb sees them: what the hooks on system calls and sk_lookup cannot. */
#pragma once
#include "ingress.h"
#include "sockets.h"

#define ETH_P_IP 0x0800
#define NEXTHDR_ROUTING 43
#define TCP_SYN 2 /* of the flags */

/* What leaves. For an instance that serves one endpoint: nothing, when the proxy is gone. And a packet goes where connect() was judged: an
 * IPv4 source route or an IPv6 routing header, which any user may set, would send it elsewhere first. */
SEC("cgroup_skb/egress")
int weir_packet(struct __sk_buff *skb) {
    struct bpf_sock *sk = skb->sk;
    __u8 b;
    if (sk)
        sk = bpf_sk_fullsock(sk);
    /* A redirected connection ends with the proxy by itself. */
    if (only_netns && !(sk && sk->dst_port == bpf_htons(REDIRECT_PORT)) && !proxy_lives(only_netns))
        return 0;
    if (ingress && sk) { /* a lost redirected client has no entry to be steered by */
        struct flow *f = bpf_sk_storage_get(&redirected, sk, 0, 0);
        if (f && f->kind == KIND_LOST)
            return 0;
    }
    if (!only_netns && (!sk || !bpf_sk_storage_get(&owner, sk, 0, 0)))
        return 1;
    if (skb->protocol == bpf_htons(ETH_P_IP))
        return !bpf_skb_load_bytes(skb, 0, &b, 1) && (b & 15) == 5; /* no options */
    return !bpf_skb_load_bytes(skb, 6, &b, 1) && b != NEXTHDR_ROUTING;
}

/* Reads addresses and ports as the sender sees them, and of a SYN its number; false: not of protocol a->proto, or cut short. */
static __always_inline int read_tuple(struct __sk_buff *skb, struct arrival *a) {
    struct flow_key *k = &a->k;
    __u32 w[8];
    __u16 p[2];
    __u8 is, ihl;
    int off = 40;
    if (skb->protocol == bpf_htons(ETH_P_IP)) {
        if (bpf_skb_load_bytes(skb, 0, &ihl, 1) || bpf_skb_load_bytes(skb, 9, &is, 1) || bpf_skb_load_bytes(skb, 12, w, 8))
            return 0;
        set4(&k->local, w[0]);
        set4(&k->remote, w[1]);
        off = (ihl & 15) * 4;
    } else {
        if (bpf_skb_load_bytes(skb, 6, &is, 1) || bpf_skb_load_bytes(skb, 8, w, 32))
            return 0;
        SET6(&k->local, w);
        SET6(&k->remote, w + 4);
    }
    if (is != a->proto || bpf_skb_load_bytes(skb, off, p, 4))
        return 0;
    k->lport = bpf_ntohs(p[0]);
    k->rport = bpf_ntohs(p[1]);
    if (is != IPPROTO_TCP)
        return 1;
    if (bpf_skb_load_bytes(skb, off + 4, w, 4) || bpf_skb_load_bytes(skb, off + 13, &ihl, 1))
        return 0;
    a->isn = bpf_ntohl(w[0]);
    a->seen = (ihl & TCP_SYN) != 0;
    return 1;
}

#define ETH_HLEN 14

/* Run by Go, for a connection that nobody has judged: what would be said of it. The request lies where a packet's payload would. */
SEC("tc")
int weir_judge(struct __sk_buff *skb) {
    struct judge_request r;
    struct arrival a = {.proto = IPPROTO_TCP};
    if (bpf_skb_load_bytes(skb, ETH_HLEN, &r, sizeof r))
        return ACTION_DENY;
    a.k = r.k;
    a.endpoint = r.endpoint;
    judge_ingress(&a);
    return a.action;
}

/* What arrives at an endpoint's own sockets past sk_lookup: SYNs between listen() and its callback or with `listening` full, those that only
 * look like another endpoint's, and datagrams. */
SEC("cgroup_skb/ingress")
int weir_guard(struct __sk_buff *skb) {
    struct bpf_sock *sk = skb->sk;
    struct arrival a = {};
    if (!sk)
        return 1;
    sk = bpf_sk_fullsock(sk);
    if (!sk)
        return 1;
    __u32 proto = sk->protocol;
    if (proto == IPPROTO_TCP ? sk->state != BPF_TCP_LISTEN : proto != IPPROTO_UDP)
        return 1;
    __u32 *o = bpf_sk_storage_get(&owner, sk, 0, 0);
    if (!o || bpf_sk_storage_get(&proxy_listeners, sk, 0, 0))
        return 1;
    a.endpoint = *o;
    struct endpoint *ep = bpf_map_lookup_elem(&endpoints, &a.endpoint);
    if (!ep)
        return 0;
    if (!(ep->flags & ENFORCE_INGRESS))
        return 1;
    a.proto = proto;
    a.k.netns = ep->netns;
    if (!read_tuple(skb, &a))
        return 0;
    if (proto == IPPROTO_UDP && (sk->dst_port || answers(sk, &a.k)))
        return 1;
    judge_ingress(&a);
    if (a.action == ACTION_ALLOW)
        return 1;
    /* A SYN for the proxy that came here: the sender tries again, and sk_lookup knows the listener by then. */
    /* What follows a SYN of a connection that is gone, or was refused, has no record of its own. */
    if (a.action != ACTION_REDIRECT && (proto != IPPROTO_TCP || a.seen))
        record_arrival(&a);
    return 0;
}
