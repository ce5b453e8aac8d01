#!/bin/sh
# Three services of one machine, each in a network namespace of its own, on one bridge.
#
#	setup.sh up      make them
#	setup.sh down    remove them
set -e

case "$1" in
up)
	ip link add shop type bridge
	ip addr add 10.77.0.1/24 dev shop
	ip link set shop up
	n=10
	for name in frontend orders neighbour; do
		ip netns add $name
		ip link add eth0 netns $name type veth peer name shop-$n
		ip link set shop-$n master shop up
		ip -n $name addr add 10.77.0.$n/24 dev eth0
		ip -n $name link set eth0 up
		ip -n $name link set lo up
		n=$((n + 1))
	done
	;;
down)
	for name in frontend orders neighbour; do
		ip netns delete $name || true
	done
	ip link delete shop
	;;
*)
	echo "usage: $0 up|down" >&2
	exit 2
	;;
esac
