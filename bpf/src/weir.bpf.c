// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The programs on cgroups: who opens a socket, where it may connect or send, who listens and who comes, and, for what needs a look at its
 * requests, the way to the proxy. */
#include "judge.h"
#include "packets.h"
#include "sockops.h"

SEC("cgroup/sock_create")
int weir_sock_create(struct bpf_sock *ctx) {
    __u64 ns = bpf_get_netns_cookie(ctx);
    __u32 ep = current_endpoint(ns);
    if (!ep)
        return 1;
    if (!bpf_sk_storage_get(&owner, ctx, &ep, BPF_SK_STORAGE_GET_F_CREATE))
        return 0; /* an endpoint's socket without its owner must not exist */
    struct endpoint *e = bpf_map_lookup_elem(&endpoints, &ep);
    if (!e)
        return 0;
    if (!(e->flags & ENFORCE_EGRESS) || (e->flags & AUDIT))
        return 1;
    __u32 proto = ctx->protocol, type = ctx->type, family = ctx->family;
    if (type == SOCK_STREAM && (proto == IPPROTO_TCP || proto == IPPROTO_MPTCP))
        return 1;
    if (type == SOCK_DGRAM && proto == IPPROTO_UDP)
        return 1;
    struct judged j = {.endpoint = ep, .proto = proto, .dport = type, .reason = REASON_SOCKET};
    set4(&j.dst, 0);
    if (family == AF_INET6)
        j.dst.ip[2] = 0;
    record(&j);
    return 0;
}

/* Notes in the client's socket who it is and where it goes; false: it cannot. */
static __always_inline int remember(struct bpf_sock_addr *ctx, struct bpf_sock *sk, const struct judged *j) {
    struct flow *f = bpf_sk_storage_get(&redirected, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
    if (!f)
        return 0;
    f->dst = j->dst;
    f->dport = j->dport;
    f->kind = j->action == ACTION_REDIRECT ? KIND_REDIRECTED : KIND_DIRECT;
    f->endpoint = j->endpoint;
    f->identity = j->identity;
    f->peer = j->peer;
    f->ifindex = sk->bound_dev_if;
    f->pid = bpf_get_current_pid_tgid() >> 32;
    f->netns = j->netns;
    f->cookie = bpf_get_socket_cookie(ctx);
    bpf_get_current_comm(f->comm, sizeof f->comm);
    if (f->kind == KIND_REDIRECTED && f->ifindex) { /* SO_BINDTODEVICE would keep the SYN off the loopback */
        int none = 0;
        if (bpf_setsockopt(ctx, 1 /* SOL_SOCKET */, 62 /* SO_BINDTOIFINDEX */, &none, sizeof none))
            return 0;
    }
    return 1;
}

static __always_inline void to_loopback4(struct bpf_sock_addr *ctx) {
    ctx->user_ip4 = LOOPBACK4;
    ctx->user_port = bpf_htons(REDIRECT_PORT);
}
/* A v4-mapped destination stays v4-mapped: the socket may be bound to ::ffff:a.b.c.d, and V6ONLY must go on to refuse. */
static __always_inline void to_loopback6(struct bpf_sock_addr *ctx, int mapped) {
    ctx->user_ip6[0] = 0;
    ctx->user_ip6[1] = 0;
    ctx->user_ip6[2] = mapped ? V4MAPPED : 0;
    ctx->user_ip6[3] = mapped ? LOOPBACK4 : LOOPBACK6;
    ctx->user_port = bpf_htons(REDIRECT_PORT);
}

/* Judges and records. 1: the destination is to be rewritten to the loopback, by the caller, who knows the family. */
static __always_inline int on_connect(struct bpf_sock_addr *ctx, struct judged *j) {
    struct bpf_sock *sk = ctx->sk;
    j->dport = bpf_ntohs(ctx->user_port);
    j->proto = ctx->protocol;
    judge(ctx, j);
    if (sk && j->action != ACTION_REDIRECT)
        bpf_sk_storage_delete(&redirected, sk); /* of an earlier connect() on this socket */
    if (ingress && j->action == ACTION_ALLOW && j->endpoint && j->proto == IPPROTO_TCP && !(sk && remember(ctx, sk, j)))
        deny(j, REASON_NO_MEMORY); /* the receiver would take it for somebody else */
    if (j->action == ACTION_ALLOW) {
        if (!j->silent)
            record(j);
        return 0;
    }
    if (j->action == ACTION_REDIRECT) {
        if (sk && remember(ctx, sk, j))
            return 1;
        deny(j, REASON_NO_MEMORY);
        if (sk)
            bpf_sk_storage_delete(&redirected, sk);
    }
    record(j);
    /* A program attached after us can undo this return value: the destination is made the drop port as well. */
    bpf_set_retval(-ECONNREFUSED);
    return 1;
}

SEC("cgroup/connect4")
int weir_connect4(struct bpf_sock_addr *ctx) {
    struct judged j = {};
    set4(&j.dst, ctx->user_ip4);
    if (!on_connect(ctx, &j))
        return 1;
    to_loopback4(ctx);
    return j.action == ACTION_REDIRECT;
}

SEC("cgroup/connect6")
int weir_connect6(struct bpf_sock_addr *ctx) {
    struct judged j = {};
    SET6(&j.dst, ctx->user_ip6);
    if (!on_connect(ctx, &j))
        return 1;
    to_loopback6(ctx, is_mapped(&j.dst));
    return j.action == ACTION_REDIRECT;
}

/* Datagrams with a destination of their own. Those of connected sockets were judged at connect(). */
static __always_inline int on_sendmsg(struct bpf_sock_addr *ctx, struct judged *j) {
    struct bpf_sock *sk = ctx->sk;
    j->dport = bpf_ntohs(ctx->user_port);
    j->proto = ctx->protocol;
    judge(ctx, j);
    if (j->action == ACTION_REDIRECT)
        deny(j, REASON_NOT_TCP);
    if (!j->silent && sk) {        if (!sent_before(sk, &j->dst, j->dport, j->action))
            record(j);
    }
    if (j->action == ACTION_ALLOW)
        return 1;
    bpf_set_retval(-ECONNREFUSED);
    return 0;
}

SEC("cgroup/sendmsg4")
int weir_sendmsg4(struct bpf_sock_addr *ctx) {
    struct judged j = {};
    set4(&j.dst, ctx->user_ip4);
    return on_sendmsg(ctx, &j);
}

SEC("cgroup/sendmsg6")
int weir_sendmsg6(struct bpf_sock_addr *ctx) {
    struct judged j = {};
    SET6(&j.dst, ctx->user_ip6);
    return on_sendmsg(ctx, &j);
}

/* getpeername() shows a redirected client the destination that it asked for, and an application, for accept() too, the client behind the
 * proxy. An MPTCP socket has no storage of its own: its first subflow is found by tuple. */
static __always_inline struct flow *flow_to_show(struct bpf_sock_addr *ctx, struct flow_key *k) {
    struct bpf_sock *sk = ctx->sk;
    if (!sk)
        return 0;
    struct flow *f = bpf_sk_storage_get(&redirected, sk, 0, 0);
    if (f && f->kind == KIND_UPSTREAM && !is_any(&f->dst))
        return f;
    if (ctx->user_port != bpf_htons(REDIRECT_PORT))
        return 0;
    if (f)
        return f;
    k->netns = bpf_get_netns_cookie(ctx);
    k->lport = sk->src_port;
    k->rport = REDIRECT_PORT;
    return bpf_map_lookup_elem(&flows, k);
}

SEC("cgroup/getpeername4")
int weir_getpeername4(struct bpf_sock_addr *ctx) {
    struct flow_key k = {};
    struct bpf_sock *sk = ctx->sk;
    if (!sk)
        return 1;
    set4(&k.local, sk->src_ip4);
    set4(&k.remote, ctx->user_ip4);
    struct flow *f = flow_to_show(ctx, &k);
    if (f) {
        ctx->user_ip4 = f->dst.ip[3];
        ctx->user_port = bpf_htons(f->dport);
    }
    return 1;
}

SEC("cgroup/getpeername6")
int weir_getpeername6(struct bpf_sock_addr *ctx) {
    struct flow_key k = {};
    struct bpf_sock *sk = ctx->sk;
    if (!sk)
        return 1;
    SET6(&k.local, sk->src_ip6);
    SET6(&k.remote, ctx->user_ip6);
    struct flow *f = flow_to_show(ctx, &k);
    if (f) {
        ctx->user_ip6[0] = f->dst.ip[0];
        ctx->user_ip6[1] = f->dst.ip[1];
        ctx->user_ip6[2] = f->dst.ip[2];
        ctx->user_ip6[3] = f->dst.ip[3];
        ctx->user_port = bpf_htons(f->dport);
    }
    return 1;
}

#define IPPROTO_IP_LEVEL 0
#define IP_OPTIONS 4
#define IPPROTO_IPV6_LEVEL 41
#define IPV6_2292RTHDR 5
#define IPV6_2292PKTOPTIONS 6
#define IPV6_RTHDR 57
#define MAX_OPTLEN 4096

/* A source route or a routing header, which any user may set, would carry the SYN of a redirected connection elsewhere before it comes to
 * the loopback. Those of direct ones, and of datagrams that bring theirs along, are weir_packet's. */
SEC("cgroup/setsockopt")
int weir_setsockopt(struct bpf_sockopt *ctx) {
    int level = ctx->level, name = ctx->optname;
    if (level == IPPROTO_IP_LEVEL && name == IP_OPTIONS)
        return 0;
    if (level == IPPROTO_IPV6_LEVEL && (name == IPV6_RTHDR || name == IPV6_2292RTHDR || name == IPV6_2292PKTOPTIONS))
        return 0;
    if (ctx->optlen > MAX_OPTLEN)
        ctx->optlen = 0; /* else the kernel refuses what is larger than a page */
    return 1;
}

/* Emits these types for Go. */
const struct event *unused_event __attribute__((unused));
const struct judge_request *unused_request __attribute__((unused));
const enum reason *unused_reason __attribute__((unused));
const enum action *unused_action __attribute__((unused));
const enum endpoint_flags *unused_flags __attribute__((unused));
const enum kind *unused_kind __attribute__((unused));
const enum counter *unused_counter __attribute__((unused));

char _license[] SEC("license") = "Dual BSD/GPL";
