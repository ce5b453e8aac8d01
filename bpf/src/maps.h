/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The maps that the endpoint's programs and the steering programs share. No LRU anywhere: it would lose live flows. */
#pragma once
#include "types.h"

/* Redirected connections, from TCP_CONNECT_CB of the client to its CLOSE. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 65536);
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
