#!/bin/sh
# Runs once inside the namespaces of a node, whose address is given: files and network as its programs expect them.
# No path of the machine is written to: what they would write lies on memory file systems, gone with the namespaces.
set -eu
readonly ADDRESS="$1"

memory() {
  mkdir -p "$1"
  mount -t tmpfs -o mode=0755 tmpfs "$1"
}

# The machine's folder with whatever is added to it kept in memory.
writable() {
  mkdir -p "/run/layers$1/upper" "/run/layers$1/work"
  mount -t overlay -o "lowerdir=$1,upperdir=/run/layers$1/upper,workdir=/run/layers$1/work" overlay "$1"
}

# The kubelet sets these for the whole machine, where they differ from what it wants.
stand_in() {
  mkdir -p /run/settings
  cat "/proc/sys/$1" > "/run/settings/${1##*/}"
  mount --bind "/run/settings/${1##*/}" "/proc/sys/$1"
}

memory /run
writable /var/lib
writable /var/log
memory /var/lib/kubelet
memory /var/lib/containerd
mount --make-rshared /var/lib/kubelet
for setting in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys \
  kernel/keys/root_maxbytes; do
  stand_in "${setting}"
done

hostname node
ip link set lo up
ip address add "${ADDRESS}/30" dev eth0
ip link set eth0 up
echo 1 > /proc/sys/net/ipv4/ip_forward
