/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Whose socket is this, and who is at the other end? */
#pragma once
#include "maps.h"
#include <bpf/bpf_core_read.h>

/* cgroup id -> endpoint */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 4096);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, __u64);
    __type(value, __u32);
} by_cgroup SEC(".maps");

/* The opener's endpoint, written at socket(). Accepted sockets inherit their listener's; a descriptor passed on stays its opener's. */
struct {
    __uint(type, BPF_MAP_TYPE_SK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
    __type(key, int);
    __type(value, __u32);
} owner SEC(".maps");

/* The proxy's own sockets, marked by the proxy through their descriptors before connect(). No workload can write here. */
struct {
    __uint(type, BPF_MAP_TYPE_SK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, struct upstream);
} proxy_sockets SEC(".maps");

/* An endpoint's cgroup may be this deep; Go refuses a deeper one. Its processes may be deeper. */
#define MAX_CGROUP_DEPTH 32

/* The endpoint of the current task in namespace ns: its nearest cgroup that is one, else the namespace; 0 none. */
static __always_inline __u32 current_endpoint(__u64 ns) {
    __u32 found = 0;
    for (int level = 1; level <= MAX_CGROUP_DEPTH; level++) {
        __u64 id = bpf_get_current_ancestor_cgroup_id(level);
        if (!id) /* deeper than the task's own cgroup */
            break;
        __u32 *e = bpf_map_lookup_elem(&by_cgroup, &id);
        if (e)
            found = *e;
    }
    if (!found) {
        __u32 *e = bpf_map_lookup_elem(&by_netns, &ns);
        if (e)
            found = *e;
    }
    return found;
}

/* The opener's endpoint, 0 unknown. A subflow of MPTCP is made by the kernel and has no owner of its own: it gets its MPTCP socket's. */
static __always_inline __u32 owner_of(struct bpf_sock *sk) {
    __u32 *v = bpf_sk_storage_get(&owner, sk, 0, 0);
    if (v)
        return *v;
    struct mptcp_sock *m = bpf_skc_to_mptcp_sock(sk);
    if (!m)
        return 0;
    v = bpf_sk_storage_get(&owner, m, 0, 0);
    if (!v)
        return 0;
    bpf_sk_storage_get(&owner, sk, v, BPF_SK_STORAGE_GET_F_CREATE);
    return *v;
}

/* Just enough of the kernel's types to read two bits and a number; the offsets come from the kernel's BTF. */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct sock_common {
    unsigned char skc_reuse : 4, skc_reuseport : 1, skc_ipv6only : 1;
};
struct sock {
    struct sock_common __sk_common;
};
struct inet_sock {
    struct sock sk;
};
struct inet_connection_sock {
    struct inet_sock icsk_inet;
};
struct tcp_sock {
    struct inet_connection_sock inet_conn;
    __u32 write_seq;
};
#pragma clang attribute pop

/* What a lookup of the listening socket behind a local address found. */
enum local { LOCAL_NOBODY, LOCAL_OTHER, LOCAL_ENDPOINT };

/* Finds the TCP socket that would take a SYN to dst:port (network byte order) in this namespace, and its owner. A socket in a SO_REUSEPORT
 * group counts as somebody else's: the SYN may find another member of the group. */
static __always_inline enum local local_listener(struct bpf_sock_addr *ctx, const struct addr *dst, __u16 port, __u32 *ep) {
    struct bpf_sock_tuple t = {}; /* from the unspecified address, by which weir_steer knows that it is no packet */
    struct bpf_sock *sk;
    enum local found = LOCAL_OTHER;
    __u32 size;
    if (is_mapped(dst)) {
        t.ipv4.daddr = dst->ip[3] ? dst->ip[3] : LOOPBACK4;
        t.ipv4.dport = port;
        size = sizeof t.ipv4;
    } else {
        t.ipv6.daddr[0] = dst->ip[0];
        t.ipv6.daddr[1] = dst->ip[1];
        t.ipv6.daddr[2] = dst->ip[2];
        t.ipv6.daddr[3] = is_any(dst) ? LOOPBACK6 : dst->ip[3];
        t.ipv6.dport = port;
        size = sizeof t.ipv6;
    }
    sk = bpf_sk_lookup_tcp(ctx, &t, size, BPF_F_CURRENT_NETNS, 0);
    if (!sk)
        return LOCAL_NOBODY;
    *ep = owner_of(sk);
    if (*ep) {
        struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
        if (tp && !BPF_CORE_READ_BITFIELD(&tp->inet_conn.icsk_inet.sk.__sk_common, skc_reuseport))
            found = LOCAL_ENDPOINT;
    }
    bpf_sk_release(sk);
    return found;
}
