// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* sk_lookup: gives SYNs to the proxy's listener, those of redirected clients and those for a port whose requests are judged. One instance
 * per namespace, because no sk_lookup program can ask where it is. */
#include "ingress.h"

volatile const __u64 netns_cookie;
volatile const __u32 ingress; /* 0: nobody's ingress is judged here */

static __always_inline int give(struct bpf_sk_lookup *ctx) {
    struct listener_key l = {.netns = netns_cookie, .family = ctx->family};
    struct bpf_sock *sk = bpf_map_lookup_elem(&listeners, &l);
    if (!sk)
        return SK_DROP;
    long err = bpf_sk_assign(ctx, sk, 0);
    bpf_sk_release(sk);
    return err ? SK_DROP : SK_PASS;
}

/* Nobody reaches the proxy's listener by its own port. */
static __always_inline int is_listeners_port(struct bpf_sk_lookup *ctx) {
    struct listener_key l = {.netns = netns_cookie, .family = ctx->family};
    struct bpf_sock *sk = bpf_map_lookup_elem(&listeners, &l);
    if (!sk)
        return 0;
    int own = ctx->local_port == sk->src_port;
    bpf_sk_release(sk);
    return own;
}

SEC("sk_lookup")
int weir_steer(struct bpf_sk_lookup *ctx) {
    if (ctx->protocol != IPPROTO_TCP)
        return SK_PASS;
    struct arrival a = {.proto = IPPROTO_TCP, .k.netns = netns_cookie};
    READ_ADDR(&a.k.local, ctx, remote_ip);
    READ_ADDR(&a.k.remote, ctx, local_ip);
    a.k.lport = bpf_ntohs(ctx->remote_port);
    a.k.rport = ctx->local_port;

    if (a.k.rport == REDIRECT_PORT) {
        if (!bpf_map_lookup_elem(&flows, &a.k))
            return SK_DROP;
        return give(ctx);
    }
    if (is_listeners_port(ctx))
        return SK_DROP;
    if (!ingress || is_any(&a.k.local) || !ctx->ingress_ifindex)
        /* No packet: bpf_sk_lookup_tcp wants to know who listens, or sock_diag looks for a socket that is gone. Linux takes no packet from such
         * a source, and each came by an interface (Linux 5.17). */
        return SK_PASS;

    a.endpoint = weir_receiver(&a.k);
    if (!a.endpoint) /* nobody of ours listens: Linux decides */
        return SK_PASS;
    judge_ingress(&a);
    if (a.action == ACTION_ALLOW)
        return SK_PASS; /* recorded when it is established */
    if (a.action == ACTION_REDIRECT)
        return give(ctx);
    record_arrival(&a);
    return SK_DROP;
}

char _license[] SEC("license") = "Dual BSD/GPL";
