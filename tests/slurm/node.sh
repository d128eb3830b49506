#!/bin/bash
# PID 1 of a virtual node: node.sh NAME ADDRESS DIRECTORY [SHARED...]
#
# Started in namespaces of its own (network, host name, mounts, PIDs, IPC). /tmp, /var/tmp and /dev/shm become the node's
# own. Every SHARED directory that lies below one of them stays the machine's, as does the rest of the file system: that
# is what a parallel file system is to a real cluster.
set -euo pipefail
name=$1 address=$2 directory=$3 own=$3/nodes/$1
shift 3
export PATH=$PATH:/usr/sbin:/sbin SLURM_CONF=$directory/slurm.conf

mount -t proc proc /proc
hostname "$name"
mkdir -p "$own"/{tmp,vartmp,spool}
chmod 1777 "$own"/{tmp,vartmp}

# A descriptor holds a shared directory while its parent is covered.
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

# The fixture moves the other end of the link here.
until ip link show dev eth0 >/dev/null 2>&1; do sleep 0.02; done
ip link set lo up
ip address add "$address/24" dev eth0
ip link set eth0 up

cd /
trap 'exit 0' TERM
# slurmd 22.05 may crash where two steps start at once: it comes back, as a service would. bash reaps the node's orphans.
while :; do
  slurmd -D </dev/null &
  wait $! || sleep 0.2
done
