/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The maps that the endpoint's programs and the steering programs share. No LRU anywhere: it would lose live flows. */
#pragma once
#include "types.h"

/* Connections from TCP_CONNECT_CB of the connecting socket to its CLOSE: under its namespace's cookie, and without one (0) where they may
 * arrive in another namespace of this machine. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 262144);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct flow_key);
    __type(value, struct flow);
} flows SEC(".maps");

/* The proxy's listening sockets, one dual-stack socket under both families. A dead proxy's socket vanishes from here by itself. */
struct {
    __uint(type, BPF_MAP_TYPE_SOCKHASH);
    __uint(max_entries, 8192);
    __type(key, struct listener_key);
    __type(value, __u64);
} listeners SEC(".maps");

/* netns cookie -> endpoint */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 4096);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, __u64);
    __type(value, __u32);
} by_netns SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 8192);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, __u32);
    __type(value, struct endpoint);
} endpoints SEC(".maps");

/* Address -> identity by longest prefix, under an endpoint's scope (local addresses) or a common one. */
struct {
    __uint(type, BPF_MAP_TYPE_LPM_TRIE);
    __uint(max_entries, 65536);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct peer_key);
    __type(value, __u32);
} peers SEC(".maps");

/* The namespaces, by cookie, in which somebody is under policy. Who listens elsewhere matters to nobody. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 8192);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, __u64);
    __type(value, __u32);
} places SEC(".maps");

/* Who listens there, of every process: a more specific unmanaged listener wins over an endpoint's, as in Linux. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 65536);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct lport_key);
    __type(value, struct lport);
} listening SEC(".maps");

/* Listening sockets that a process of an endpoint holds although somebody unmanaged opened them, as systemd does for its services. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 4096);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct lport_key);
    __type(value, __u32);
} inherited SEC(".maps");

/* Final verdicts per endpoint, peer identity, direction, protocol and port prefix. What is not there is denied. */
struct {
    __uint(type, BPF_MAP_TYPE_LPM_TRIE);
    __uint(max_entries, 262144);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct policy_key);
    __type(value, struct policy_value);
} policy SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 1 << 20);
} events SEC(".maps");

enum counter { COUNT_EVENTS_LOST, COUNT_FLOWS_FULL, COUNT_LISTENING_FULL, COUNT_MAX };
struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, COUNT_MAX);
    __type(key, __u32);
    __type(value, __u64);
} counters SEC(".maps");

static __always_inline void count(__u32 which) {
    __u64 *v = bpf_map_lookup_elem(&counters, &which);
    if (v)
        (*v)++;
}

static __always_inline int proxy_lives(__u64 ns) {
    struct listener_key l = {.netns = ns, .family = AF_INET};
    struct bpf_sock *sk = bpf_map_lookup_elem(&listeners, &l);
    if (!sk)
        return 0;
    bpf_sk_release(sk);
    return 1;
}
