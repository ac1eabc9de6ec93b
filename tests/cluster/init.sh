#!/usr/bin/env bash
# PID 1 of one host of the little cluster: builds the host's own root, configures its NIC, starts sshd, reaps orphans.
#
#   init.sh NAME DISK SHARED SHM_MIB NIC ADDRESS/PREFIX [SHOWN_DIRECTORY ...]
#
# It runs in new mount, UTS, IPC, PID and network namespaces. Standard input is the lifeline to the tests: one line
# "wired" says that the NIC is there; its end, however it comes, powers the host off. Standard output says how far
# the boot got ("pid1 N", "ready"); standard error is the boot log.
set -euo pipefail
name=$1 disk=$2 shared=$3 shm_mib=$4 nic=$5 address=$6
shift 6

read -r pid_outside _ </proc/self/stat # /proc is still the outer one here
echo "pid1 $pid_outside"
read -r line && [[ $line == wired ]]

echo "$name" >/proc/sys/kernel/hostname
ulimit -Sn "$(ulimit -Hn)" # raising the hard limit is not root's right in every container
umask 022

# The disk: everything below / that the machine has, with this host's own writable layer over it.
root=$disk/root
mkdir -p "$root" "$disk/work"
mount -t overlay overlay -o "lowerdir=/,upperdir=$disk/upper,workdir=$disk/work" "$root"
mkdir -p "$root/shared"
mount --bind "$shared" "$root/shared"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys" # of this network namespace: /sys/class/net has this host's NICs only
mount -t tmpfs -o mode=1777,size=4g tmpfs "$root/tmp"
mount -t tmpfs -o mode=755,size=64m tmpfs "$root/run"

# Own devices: no GPU, disk or terminal of the machine is reachable.
mount -t tmpfs -o mode=755,size=1m tmpfs "$root/dev"
mkdir -m 755 "$root/dev/pts" "$root/dev/shm" "$root/run/sshd"
while read -r device major minor; do
  mknod -m 666 "$root/dev/$device" c "$major" "$minor"
done <<'DEVICES'
null 1 3
zero 1 5
full 1 7
random 1 8
urandom 1 9
tty 5 0
DEVICES
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
mount -t tmpfs -o "mode=1777,size=${shm_mib}m" tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s /proc/self/fd/0 "$root/dev/stdin"
ln -s /proc/self/fd/1 "$root/dev/stdout"
ln -s /proc/self/fd/2 "$root/dev/stderr"

# Directories that the overlay of / does not show (other mounts, /tmp, the home): the same trick for each.
number=0
for shown in "$@"; do
  layer=$disk/shown$number
  mkdir -p "$layer/upper" "$layer/work" "$root$shown"
  mount -t overlay overlay -o "lowerdir=$shown,upperdir=$layer/upper,workdir=$layer/work" "$root$shown"
  number=$((number + 1))
done

cd "$root"
pivot_root . . # the old root is now mounted over the new one ...
umount -l .    # ... and goes, with everything of the machine that was below it
cd /

ip -batch - <<LINKS
link set lo up
address add $address dev $nic
link set $nic up
LINKS

# A neighbour that is gone is noticed in a second or two rather than in half a minute: tests wait for that.
for setting in base_reachable_time_ms=5000 delay_first_probe_time=1 retrans_time_ms=200; do
  echo "${setting#*=}" >"/proc/sys/net/ipv4/neigh/$nic/${setting%=*}"
done

no_sshd() {
  cat /var/log/sshd.log >&2
  exit 1
}
/usr/sbin/sshd -f /etc/ssh/sshd_config -E /var/log/sshd.log </dev/null >/dev/null || no_sshd
for ((tries = 0; tries < 1000; tries++)); do
  [[ -s /run/sshd.pid ]] && break # written when it listens
  sleep 0.01
done
[[ -s /run/sshd.pid ]] || no_sshd

echo ready
while read -r _; do :; done # bash reaps orphans meanwhile; the end of the lifeline ends the host
