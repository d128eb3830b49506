#!/bin/bash
# PID 1 of a virtual node: node.sh NAME ADDRESS DIRECTORY [SHARED...]
#
# It runs in namespaces of its own (network, host name, mounts, PIDs, IPC). /tmp, /var/tmp and /dev/shm become the
# node's own. SHARED directories below them stay the machine's, like the rest of the file system, and act as a real
# cluster's parallel file system.
set -euo pipefail
name=$1 address=$2 directory=$3 own=$3/nodes/$1
shift 3
export PATH=$PATH:/usr/sbin:/sbin SLURM_CONF=$directory/slurm.conf

mount -t proc proc /proc
hostname "$name"
mkdir -p "$own"/{tmp,vartmp,spool}
chmod 1777 "$own"/{tmp,vartmp}

# An open descriptor keeps a shared directory reachable while a mount covers its parent.
shared=() held=()
for path; do
  case $path in
    /tmp/* | /var/tmp/* | /dev/shm/*)
      exec {descriptor}<"$path"
      shared+=("$path") held+=("$descriptor")
      ;;
  esac
done
mount --bind "$own/vartmp" /var/tmp
mount -t tmpfs -o mode=1777 shm /dev/shm
mount --bind "$own/tmp" /tmp
for at in "${!shared[@]}"; do
  mkdir -p "${shared[at]}"
  mount --no-canonicalize --bind "/proc/self/fd/${held[at]}" "${shared[at]}"
  descriptor=${held[at]}
  exec {descriptor}<&-
done
mount --bind "$directory/hosts" /etc/hosts

# Wait until the fixture has moved the network link here.
until ip link show dev eth0 >/dev/null 2>&1; do sleep 0.02; done
ip link set lo up
ip address add "$address/24" dev eth0
ip link set eth0 up

cd /
trap 'exit 0' TERM
# slurmd 22.05 may crash when two steps start at once, so restart it, as a service would. bash reaps the node's orphans.
while :; do
  slurmd -D </dev/null &
  wait $! || sleep 0.2
done
