#!/bin/sh
# All of a host that a removal could forget, a line for each thing.
set -eu

# Type, mode, owner and path; what systemd itself keeps of units that are loaded is below.
find /etc /opt /usr/local /root /home /srv /var/lib /var/cache /var/log /var/spool /run -xdev \
  \( -path /run/systemd -o -path /run/user -o -path /run/udev -o -path /run/log -o -path /var/log/journal -o -path /root/.ansible \
     -o -path /var/lib/apt -o -path /var/cache/apt -o -path /var/lib/dpkg/info -o -path /var/lib/systemd \) -prune \
  -o -printf 'path %y %m %u:%g %p\n'

# The content of what is configuration.
find /etc /usr/local -xdev -type f -exec md5sum {} + | sed 's/^/content /'

getent passwd | sed 's/^/user /'
getent group | sed 's/^/group /'
dpkg-query --show --showformat 'package ${Package} ${db:Status-Want} ${db:Status-Status}\n'
systemctl list-unit-files --no-legend --no-pager --plain | awk '{ print "unit file", $1, $2 }'
systemctl list-units --all --no-legend --no-pager --plain --type=service,timer,socket,path |
  awk '{ print "unit", $1, $3 }'
ss --no-header --listening --tcp --udp --numeric | awk '{ print "listens", $1, $5 }'
for table in iptables ip6tables; do
  $table --list-rules 2>/dev/null | sed "s/^/rule $table /" || true
done
