#!/bin/sh
# Installs the compiler the committed BPF objects are made with, if it is not
# there, and refuses any other: another version gives other bytes, and then
# nobody could tell a stale object from a fresh one.
set -eu

want=14.0.6
clang=${BPF_CLANG:-clang-14}
strip=${BPF_STRIP:-llvm-strip-14}

if ! command -v "$clang" >/dev/null || ! command -v "$strip" >/dev/null ||
	[ ! -e /usr/include/linux/bpf.h ]; then
	if ! command -v apt-get >/dev/null; then
		echo "bpf/clang.sh: install clang $want, its llvm-strip and the kernel's user headers, or run this on Debian 12 (no apt-get here)" >&2
		exit 1
	fi
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -qq
	apt-get install -y -qq --no-install-recommends clang-14 llvm-14 linux-libc-dev >/dev/null
fi

have=$("$clang" --version | sed -n 's/.*clang version \([0-9.]*\).*/\1/p')
if [ "$have" != "$want" ]; then
	echo "bpf/clang.sh: $clang is version ${have:-unknown}, the committed objects are made with $want: install Debian 12's clang-14, or set BPF_CLANG and BPF_STRIP" >&2
	exit 1
fi
