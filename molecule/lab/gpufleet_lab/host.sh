#!/bin/sh
# One lab host while it has power: host.sh CGROUP IMAGE DIRECTORY NSPAWN-OPTION...
# Runs in a mount namespace of its own (unshare --mount), so that its mounts are nobody else's and
# end with it; and in CGROUP/power, since a process in CGROUP itself would keep the host's systemd
# from sharing out controllers.
set -eu
cgroup=$1 image=$2 directory=$3
shift 3

# nspawn shows a host the kind of cgroups that it finds here: v2, also where the machine mounts v1.
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
cgroup=/sys/fs/cgroup${cgroup#"$CGROUP_ROOT"}

# nspawn's notes about running machines; private, since a host that loses power cannot tidy up.
mkdir -p /run/systemd/nspawn
mount -t tmpfs nspawn /run/systemd/nspawn

# volatile: no host waits for a disk; a lab does not outlive the machine's power anyway.
rm -rf "$directory/work"
mkdir -p "$directory/work" "$directory/upper" "$directory/root"
mount -t overlay -o "lowerdir=$image,upperdir=$directory/upper,workdir=$directory/work,volatile" \
    host "$directory/root"

# The system in a group of its own, left by its own exit: 133 says reboot, anything else power off.
boot() {
    sh -c 'echo $$ >"$0/cgroup.procs" && exec systemd-nspawn "$@"' \
        "$cgroup/system" --directory="$directory/root" "$@"
}
status=133
while [ "$status" -eq 133 ]; do
    status=0
    boot "$@" || status=$?
    # What the last run left would make nspawn find the group busy.
    find "$cgroup/system" -mindepth 1 -depth -type d -exec rmdir {} +
done
exit "$status"
