// Package bpf holds the kernel half: C sources in src, and the objects and Go
// types generated from them, committed so that a build needs no clang. Only
// package redirect imports it.
package bpf

// -mcpu=v3: with older instruction sets loops hit the verifier's limit.
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -go-package bpf -tags linux -type flow_key -type upstream -type lport_key -type lport -type lport_change -type judge_request -type kind -type flow -type listener_key -type endpoint -type peer_key -type policy_key -type policy_value -type event -type endpoint_flags -type counter -type reason -type action Weir src/weir.bpf.c -- -O2 -g -Wall -Werror -mcpu=v3 -Iheaders -I/usr/include/x86_64-linux-gnu
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -go-package bpf -tags linux Steer src/steer.bpf.c -- -O2 -g -Wall -Werror -mcpu=v3 -Iheaders -I/usr/include/x86_64-linux-gnu
