/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The life of a TCP socket, as sockops sees it: connecting, listening, accepted, closed. */
#pragma once
#include "ingress.h"
#include "sockets.h"

/* The socket in s is the connecting one. A v4-mapped socket has family AF_INET6 and mapped addresses here. */
static __always_inline void client_key(struct bpf_sock_ops *s, struct flow_key *k) {
    k->netns = bpf_get_netns_cookie(s);
    READ_ADDR(&k->local, s, local_ip);
    READ_ADDR(&k->remote, s, remote_ip);
    k->lport = *(volatile __u32 *)&s->local_port;
    k->rport = bpf_ntohl(*(volatile __u32 *)&s->remote_port);
}

/* The same connection without a cookie, for a receiver in another namespace. While two claim it, it is nobody's. */
static __always_inline void claim(const struct flow_key *k, struct flow *f) {
    struct flow_key any = *k;
    any.netns = 0;
    struct flow *g;
    if (!bpf_map_update_elem(&flows, &any, f, BPF_NOEXIST))
        return;
    g = bpf_map_lookup_elem(&flows, &any);
    if (g)
        __sync_fetch_and_add(&g->claims, 1);
    else
        f->claims = 0; /* full: the sender counts as no endpoint there; its own side was judged */
}

/* The first to claim is known again when the others are gone; of others nothing was written. */
static __always_inline void unclaim(const struct flow_key *k, const struct flow *f) {
    struct flow_key any = *k;
    any.netns = 0;
    struct flow *g = bpf_map_lookup_elem(&flows, &any);
    if (!g)
        return;
    if (g->cookie == f->cookie)
        g->cookie = 0;
    if (__sync_fetch_and_add(&g->claims, -1) <= 1)
        bpf_map_delete_elem(&flows, &any);
}

static __always_inline __u32 next_sequence(struct bpf_sock *sk) {
    struct tcp_sock *t = bpf_skc_to_tcp_sock(sk);
    return t ? BPF_CORE_READ(t, write_seq) : 0;
}

/* The source port is known and no SYN is out yet: what is written here is there before anybody can accept. For a redirected client: no
 * entry, no connection. */
static __always_inline void on_connecting(struct bpf_sock_ops *s, struct bpf_sock *sk) {
    struct upstream *u = ingress ? bpf_sk_storage_get(&proxy_sockets, sk, 0, 0) : 0;
    struct flow *f = bpf_sk_storage_get(&redirected, sk, 0, u ? BPF_SK_STORAGE_GET_F_CREATE : 0);
    struct flow_key k = {};
    if (!f)
        return;
    client_key(s, &k);
    if (u) {
        f->dst = u->client;
        f->dport = u->cport;
        f->kind = KIND_UPSTREAM;
        f->judged = u->judged;
        f->endpoint = u->endpoint;
        f->identity = u->identity;
        f->netns = k.netns;
        f->cookie = bpf_get_socket_cookie(s);
    } else if (f->kind == KIND_REDIRECTED && k.rport != REDIRECT_PORT) {
        return;
    }
    f->isn = next_sequence(sk);
    f->claims = f->kind != KIND_REDIRECTED && !is_loopback(&k.remote);
    if (bpf_map_update_elem(&flows, &k, f, BPF_ANY)) {
        count(COUNT_FLOWS_FULL);
        if (f->kind != KIND_REDIRECTED) /* whose SYN is refused for want of an entry */
            f->kind = KIND_LOST; /* weir_packet keeps it back */
        return;
    }
    if (f->claims)
        claim(&k, f);
    bpf_sock_ops_cb_flags_set(s, BPF_SOCK_OPS_STATE_CB_FLAG);
}

/* On the proxy's accepted socket: a client of an endpoint's listening port. */
static __always_inline void on_arrived(struct bpf_sock *sk, struct arrival *a) {
    a->endpoint = weir_receiver(&a->k);
    if (!a->endpoint)
        return; /* the listener went away meanwhile: without a flow the proxy resets */
    judge_ingress(a);
    struct flow *f = bpf_sk_storage_get(&redirected, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
    if (!f)
        return;
    f->dst = a->k.remote;
    f->dport = a->k.rport;
    f->kind = KIND_INGRESS;
    f->endpoint = a->endpoint;
    f->identity = a->identity;
    f->peer = a->peer;
    f->netns = a->k.netns;
    if (a->sender) {
        f->pid = a->sender->pid;
        __builtin_memcpy(f->comm, a->sender->comm, sizeof f->comm);
    }
}

/* An accepted socket gets its flow before accept() can return it: a short client's entry may be gone by then. */
static __always_inline void on_accepted(struct bpf_sock_ops *s, struct bpf_sock *sk) {
    struct flow_key c = {};
    struct arrival a = {.proto = IPPROTO_TCP, .seen = 1, .isn = s->rcv_nxt - 1};
    client_key(s, &c);
    a.k.netns = c.netns;
    a.k.local = c.remote;
    a.k.remote = c.local;
    a.k.lport = c.rport;
    a.k.rport = c.lport;
    if (c.lport == REDIRECT_PORT) {
        struct flow *f = bpf_map_lookup_elem(&flows, &a.k);
        if (f && f->isn == a.isn)
            bpf_sk_storage_get(&redirected, sk, f, BPF_SK_STORAGE_GET_F_CREATE);
        return;
    }
    if (!ingress)
        return;
    if (bpf_sk_storage_get(&proxy_listeners, sk, 0, 0)) {
        on_arrived(sk, &a);
        return;
    }
    a.endpoint = owner_of(sk);
    if (!a.endpoint)
        a.endpoint = weir_receiver(&a.k);
    if (!a.endpoint)
        return;
    judge_ingress(&a);
    if (a.sender && a.sender->kind == KIND_UPSTREAM && a.sender->judged == a.endpoint)
        bpf_sk_storage_get(&redirected, sk, a.sender, BPF_SK_STORAGE_GET_F_CREATE);
    else if (!a.silent && a.action == ACTION_ALLOW)
        record_arrival(&a);
}

static __always_inline __u32 is_dual(struct bpf_sock *sk) {
    struct tcp_sock *t = bpf_skc_to_tcp_sock(sk);
    return t && !BPF_CORE_READ_BITFIELD(&t->inet_conn.icsk_inet.sk.__sk_common, skc_ipv6only);
}

static __always_inline void listen_key(struct bpf_sock_ops *s, struct lport_key *k) {
    k->netns = bpf_get_netns_cookie(s);
    READ_ADDR(&k->local, s, local_ip);
    k->port = *(volatile __u32 *)&s->local_port;
}

/* The socket is in the listening hash already, so a SYN may have got in before: weir_guard refuses that one. */
static __always_inline void on_listening(struct bpf_sock_ops *s, struct bpf_sock *sk) {
    struct lport_key k = {};
    struct lport n = {.refs = 1};
    struct lport *v;
    if (!ingress || bpf_sk_storage_get(&proxy_listeners, sk, 0, 0))
        return;
    listen_key(s, &k);
    if (!bpf_map_lookup_elem(&places, &k.netns))
        return; /* seeded, should somebody come under policy there */
    n.endpoint = owner_of(sk);
    if (!n.endpoint) { /* opened before us: weir_guard is to see it from now on */
        __u32 *e = bpf_map_lookup_elem(&by_netns, &k.netns);
        if (e && bpf_sk_storage_get(&owner, sk, e, BPF_SK_STORAGE_GET_F_CREATE))
            n.endpoint = *e;
    }
    n.dual = is_dual(sk);
    bpf_sock_ops_cb_flags_set(s, BPF_SOCK_OPS_STATE_CB_FLAG);
    v = bpf_map_lookup_elem(&listening, &k);
    if (!v) {
        if (!bpf_map_update_elem(&listening, &k, &n, BPF_NOEXIST))
            return;
        v = bpf_map_lookup_elem(&listening, &k);
        if (!v) {
            count(COUNT_LISTENING_FULL);
            return;
        }
    }
    if (__sync_fetch_and_add(&v->refs, 1) <= 0 || n.endpoint) { /* an endpoint beside others in a reuseport group: judged */
        v->endpoint = n.endpoint;
        v->dual = n.dual;
    }
}

static __always_inline void on_closed(struct bpf_sock_ops *s, struct bpf_sock *sk) {
    struct flow_key k = {};
    if (s->args[0] == BPF_TCP_LISTEN) {
        struct lport_key lk = {};
        listen_key(s, &lk);
        struct lport *v = bpf_map_lookup_elem(&listening, &lk);
        if (v)
            __sync_fetch_and_add(&v->refs, -1);
        return;
    }
    struct flow *f = bpf_sk_storage_get(&redirected, sk, 0, 0);
    if (!f)
        return;
    client_key(s, &k);
    struct flow *g = bpf_map_lookup_elem(&flows, &k);
    if (g && g->cookie == f->cookie)
        bpf_map_delete_elem(&flows, &k);
    if (f->claims)
        unclaim(&k, f);
    f->claims = 0;
}

/* The count as the programs above keep it, changed by Go: a map update could undo one of theirs. */
SEC("syscall")
int weir_count(struct lport_change *c) {
    struct lport_key k = c->key;
    struct lport n = {.dual = c->dual};
    struct lport *v = bpf_map_lookup_elem(&listening, &k);
    if (!v && c->delta > 0) {
        bpf_map_update_elem(&listening, &k, &n, BPF_NOEXIST);
        v = bpf_map_lookup_elem(&listening, &k);
        if (!v)
            return 1; /* full */
    }
    if (!v)
        return 0;
    if (!c->delta && v->refs <= 0) {
        bpf_map_delete_elem(&listening, &k);
        return 0;
    }
    __sync_fetch_and_add(&v->refs, c->delta);
    if (c->endpoint)
        v->endpoint = c->endpoint;
    if (c->dual)
        v->dual = 1;
    return 0;
}

SEC("sockops")
int weir_sockops(struct bpf_sock_ops *s) {
    struct bpf_sock *sk = s->sk;
    if (!sk)
        return 1;
    switch (s->op) {
    case BPF_SOCK_OPS_TCP_CONNECT_CB:
        on_connecting(s, sk);
        break;
    case BPF_SOCK_OPS_TCP_LISTEN_CB:
        on_listening(s, sk);
        break;
    case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
        on_accepted(s, sk);
        break;
    case BPF_SOCK_OPS_STATE_CB:
        if (s->args[1] == BPF_TCP_CLOSE)
            on_closed(s, sk);
        break;
    }
    return 1;
}
