#!/bin/sh
# Runs a plan as two hosts would: torchrun in each of two network namespaces that a virtual cable joins. Needs root.
#
#     sh benchmarks/two_hosts.sh PLAN FOLDER
#
# The folder is seen by both, as a shared file system is. What each host prints goes into FOLDER.0.log and FOLDER.1.log.
set -eu
plan=$1 folder=$2
a=lpc-$$-a b=lpc-$$-b
python=${PYTHON:-python}

cleanup() {
    ip netns del "$a" 2>/dev/null || true
    ip netns del "$b" 2>/dev/null || true
}
trap cleanup EXIT INT TERM

ip netns add "$a"
ip netns add "$b"
ip link add "v$$a" netns "$a" type veth peer name "v$$b" netns "$b"
for host in a b; do
    name=lpc-$$-$host number=$([ "$host" = a ] && echo 1 || echo 2)
    ip -n "$name" link set lo up
    ip -n "$name" addr add "10.77.0.$number/24" dev "v$$$host"
    ip -n "$name" link set "v$$$host" up
done

host() {
    number=$1 name=$2 wire=$3
    ip netns exec "$name" env GLOO_SOCKET_IFNAME="$wire" OMP_NUM_THREADS=1 \
        "$python" -m torch.distributed.run --nnodes 2 --node-rank "$number" --nproc-per-node 1 \
        --master-addr 10.77.0.1 --master-port 29500 -m lpc run "$plan" --out "$folder" > "$folder.$number.log" 2>&1
}

host 1 "$b" "v$$b" &
host 0 "$a" "v$$a"
wait $!
wait
tail -n 2 "$folder.0.log"
