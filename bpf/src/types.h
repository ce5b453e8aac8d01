/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What BPF and the proxy share: addresses, flows, events. Every struct is free of implicit padding, because its bytes are map keys and
 * are read by Go. */
#pragma once
#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#define AF_INET 2
#define AF_INET6 10
#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif
#define ECONNREFUSED 111

/* Where a redirected or denied connection is sent, at a loopback address. tcpmux: nobody binds it, and it is no ephemeral port, so a
 * socket never connects to itself. sk_lookup takes every SYN to it; one without an entry in `flows` is dropped: it is the drop port too. */
#define REDIRECT_PORT 1

/* Reserved identities, numbered as Cilium does; SELF is ours and appears in no policy. */
#define IDENTITY_HOST 1
#define IDENTITY_WORLD 2
#define IDENTITY_SELF 0xffffffff

#define V4MAPPED bpf_htonl(0xffff)
#define LOOPBACK4 bpf_htonl(0x7f000001)
#define LOOPBACK6 bpf_htonl(1) /* the last word of ::1 */

/* An address in network byte order, IPv4 as ::ffff:a.b.c.d. */
struct addr {
    __u32 ip[4];
};

/* A TCP connection as its connecting side sees it. Ports in host byte order. */
struct flow_key {
    __u64 netns; /* cookie */
    struct addr local, remote;
    __u16 lport, rport;
    __u32 pad;
};

enum kind {
    KIND_REDIRECTED = 1, /* a client on its way to the proxy */
    KIND_DIRECT,         /* an endpoint's own connection */
    KIND_UPSTREAM,       /* the proxy's, on behalf of an endpoint or of a client from outside */
    KIND_INGRESS,        /* on the proxy's accepted socket: a client of an endpoint's listening port */
    KIND_LOST,           /* on a client's socket: `flows` was full, nothing of it may leave */
};

/* What is known about a connection, in `flows` and in its sockets' storage. */
struct flow {
    struct addr dst; /* original destination; KIND_UPSTREAM towards an application: the client to show it */
    __u16 dport;     /* host byte order */
    __u16 kind;
    __u32 endpoint;  /* the sender, 0 none; KIND_INGRESS: the receiver */
    __u32 identity;  /* of that endpoint */
    __u32 peer;      /* identity of the other end as the kernel judged it */
    __u32 ifindex;   /* SO_BINDTODEVICE of the client, 0 none */
    __u32 pid;       /* thread group of the sender, in the initial pid namespace */
    __u32 judged;    /* KIND_UPSTREAM: the endpoint whose side, as the receiver, was judged as well; 0 none */
    __u32 claims;    /* sockets that hold the entry without a cookie: nobody's while several do; on a socket: it is one of them */
    __u32 isn;       /* the sequence number of its SYN */
    __u32 pad;
    __u64 netns;     /* of the sender */
    __u64 cookie;    /* of the sender's socket; 0: it is gone, others hold the entry */
    char comm[16];
};

/* What the proxy writes on a socket of its own before connect(). */
struct upstream {
    struct addr client; /* whom the application is to see; all zero: nobody but the proxy */
    __u16 cport;
    __u16 pad;
    __u32 judged;   /* the endpoint whose side, as the receiver, was judged; 0 none */
    __u32 endpoint; /* the sender in whose name it connects, 0 none */
    __u32 identity;
};

struct listener_key {
    __u64 netns;
    __u64 family; /* AF_INET, AF_INET6 */
};

/* Listening sockets by what they are bound to. */
struct lport_key {
    __u64 netns;
    struct addr local; /* ::, ::ffff:0.0.0.0 or an address */
    __u32 port;        /* host byte order */
    __u32 pad;
};
struct lport {
    __s32 refs; /* SO_REUSEPORT: several sockets on one key. BPF never deletes an entry: at 0 it would race with another listen(). Resync does, and looks again */
    __u32 endpoint; /* 0: somebody unmanaged listens here */
    __u32 dual; /* :: takes IPv4 as well */
    __u32 pad;
};
/* What Go tells weir_count of listening sockets that the programs did not see, or saw wrongly. */
struct lport_change {
    struct lport_key key;
    __s32 delta;    /* 0: remove the entry if nobody listens */
    __u32 endpoint; /* 0: leave it */
    __u32 dual;
    __u32 pad;
};

/* What Go asks weir_judge. */
struct judge_request {
    struct flow_key k; /* as the sender sees it */
    __u32 endpoint;
    __u32 pad;
};

/* An endpoint's properties. */
struct endpoint {
    __u64 netns; /* cookie of the namespace its sockets are in */
    __u32 identity;
    __u32 scope; /* key into `peers` for addresses whose meaning depends on the namespace */
    __u32 flags;
    __u32 pad;
};
enum endpoint_flags {
    ENFORCE_EGRESS = 1,
    AUDIT = 2,         /* judge and record, let through */
    NEEDS_PROXY = 4,   /* no proxy, no network */
    ENFORCE_INGRESS = 8,
};

/* Scopes of `peers` that mean the same for every endpoint; the others are an endpoint's own. */
#define SCOPE_CIDR 0      /* prefixes that policies name */
#define SCOPE_ADDRESSES 1 /* addresses of endpoints and declared ones: for destinations, since a sender can show any address */

struct peer_key {
    __u32 prefixlen; /* 32 bits of scope, then the address */
    __u32 scope;
    struct addr addr;
};

struct policy_key {
    __u32 prefixlen;
    __u32 endpoint;
    __u32 peer;
    __u8 direction; /* EGRESS, INGRESS */
    __u8 proto;
    __u16 port; /* network byte order: its prefix is a port range */
};
#define POLICY_KEY_BITS 96
#define EGRESS 0
#define INGRESS 1
enum action { ACTION_DENY, ACTION_ALLOW, ACTION_REDIRECT };
struct policy_value {
    __u32 action;
};

enum reason {
    REASON_POLICY = 1,
    REASON_NO_PROXY,       /* nobody listens for redirected connections in this namespace */
    REASON_NOBODY_LISTENS, /* on that loopback port: refused as Linux would */
    REASON_LINK_LOCAL,     /* cannot be redirected: the interface would be lost */
    REASON_NO_MEMORY,      /* a map or the socket's storage is full */
    REASON_SOCKET,         /* a kind of socket that cannot be judged; at socket() its type is in dport */
    REASON_UNKNOWN,        /* the endpoint is not in the map */
    REASON_NOT_TCP,        /* request rules for something that is not TCP */
};

/* One decision of the kernel's own, to the ring buffer. */
struct event {
    struct addr src; /* ingress only */
    struct addr dst;
    __u32 endpoint; /* who was judged */
    __u32 peer;
    __u32 pid; /* of the sender, 0 unknown */
    __u16 sport, dport; /* host byte order */
    __u8 proto;  /* IPPROTO_* */
    __u8 action; /* what was done: ACTION_DENY, ACTION_ALLOW */
    __u8 reason;
    __u8 audit; /* 1: would have been denied */
    __u8 direction;
    __u8 pad[3];
    char comm[16];
};

/* Programs want the addresses of a context in both families before they choose one: with a load per branch clang merges them into one
 * load through a computed context pointer, which the verifier refuses. volatile: for the same reason. */
#define SET6(a, w) \
    do { \
        (a)->ip[0] = ((volatile __u32 *)(w))[0]; \
        (a)->ip[1] = ((volatile __u32 *)(w))[1]; \
        (a)->ip[2] = ((volatile __u32 *)(w))[2]; \
        (a)->ip[3] = ((volatile __u32 *)(w))[3]; \
    } while (0)
#define READ_ADDR(a, c, which) \
    do { \
        __u32 ip4 = *(volatile __u32 *)&(c)->which##4; \
        struct addr ip6; \
        SET6(&ip6, (c)->which##6); \
        if ((c)->family == AF_INET) \
            set4(a, ip4); \
        else \
            *(a) = ip6; \
    } while (0)

static __always_inline void set4(struct addr *a, __u32 ip) {
    a->ip[0] = 0;
    a->ip[1] = 0;
    a->ip[2] = V4MAPPED;
    a->ip[3] = ip;
}
static __always_inline int is_mapped(const struct addr *a) {
    return a->ip[0] == 0 && a->ip[1] == 0 && a->ip[2] == V4MAPPED;
}
static __always_inline int is_any(const struct addr *a) {
    return a->ip[0] == 0 && a->ip[1] == 0 && (a->ip[2] == 0 || a->ip[2] == V4MAPPED) && a->ip[3] == 0;
}
static __always_inline int is_loopback(const struct addr *a) {
    if (is_mapped(a))
        return (bpf_ntohl(a->ip[3]) >> 24) == 127;
    return a->ip[0] == 0 && a->ip[1] == 0 && a->ip[2] == 0 && a->ip[3] == LOOPBACK6;
}
static __always_inline int is_link_local6(const struct addr *a) {
    return (bpf_ntohl(a->ip[0]) >> 22) == 0x3fa; /* fe80::/10 */
}
