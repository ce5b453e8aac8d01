// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* sk_lookup: gives SYNs to the redirect port to the proxy's listener. One instance per namespace, because no sk_lookup program can ask
 * where it is. */
#include "maps.h"

volatile const __u64 netns_cookie;

SEC("sk_lookup")
int weir_steer(struct bpf_sk_lookup *ctx) {
    if (ctx->protocol != IPPROTO_TCP)
        return SK_PASS;
    struct listener_key l = {.netns = netns_cookie, .family = ctx->family};
    struct bpf_sock *sk;

    if (ctx->local_port == REDIRECT_PORT) {
        struct flow_key k = {.netns = netns_cookie};
        READ_ADDR(&k.local, ctx, remote_ip);
        READ_ADDR(&k.remote, ctx, local_ip);
        k.lport = bpf_ntohs(ctx->remote_port);
        k.rport = ctx->local_port;
        if (!bpf_map_lookup_elem(&flows, &k))
            return SK_DROP;
        sk = bpf_map_lookup_elem(&listeners, &l);
        if (!sk)
            return SK_DROP;
        long err = bpf_sk_assign(ctx, sk, 0);
        bpf_sk_release(sk);
        return err ? SK_DROP : SK_PASS;
    }
    /* Nobody reaches the listener by its own port. */
    sk = bpf_map_lookup_elem(&listeners, &l);
    if (sk) {
        int own = ctx->local_port == sk->src_port;
        bpf_sk_release(sk);
        if (own)
            return SK_DROP;
    }
    return SK_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
