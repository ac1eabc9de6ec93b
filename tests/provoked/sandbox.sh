#!/usr/bin/env bash
# PID 1 of a sandbox: one machine named gpu-a of which everything that can be broken is its own.
#
#   sandbox.sh FOLDER SHM_SIZE [CHANGEABLE_DIRECTORY ...] -- COMMAND [ARGUMENT ...]
#
# It runs in new mount, UTS, IPC, PID and network namespaces (and a user namespace where the tests are not root's). The
# command may remove files of the changeable directories, fill /dev/shm, take ports, set up NICs and leave processes
# behind: all of it ends with this process.
set -euo pipefail
folder=$1 shm=$2
shift 2

# In a user namespace an overlay may keep its notes in user.* attributes only.
read -r _ _ users </proc/self/uid_map
attributes=
((users == 4294967295)) || attributes=,userxattr

mkdir "$folder/layers"
mount -t tmpfs -o mode=755 tmpfs "$folder/layers"
number=0
while [[ $1 != -- ]]; do
  layer=$folder/layers/$number
  mkdir -p "$layer/upper" "$layer/work"
  mount -t overlay overlay -o "lowerdir=$1,upperdir=$layer/upper,workdir=$layer/work$attributes" "$1"
  number=$((number + 1))
  shift
done
shift

mount -t proc proc /proc
mount -t tmpfs -o "mode=1777,size=$shm" tmpfs /dev/shm
ip link set lo up
ip address add 192.0.2.10/32 dev lo
echo gpu-a >/proc/sys/kernel/hostname
# Names come from this file alone: no name server, and nothing of the machine's own names in the logs.
printf '127.0.0.1 localhost\n192.0.2.10 gpu-a\n' >"$folder/layers/hosts"
printf 'passwd: files\ngroup: files\nhosts: files\nservices: files\n' >"$folder/layers/nsswitch.conf"
for file in hosts nsswitch.conf; do
  mount --bind "$folder/layers/$file" "/etc/$file"
done

cd "$folder/job"
code=0
"$@" || code=$? # not exec: PID 1 gets no signals that it has no handler for, and orphans must be reaped
exit "$code"
