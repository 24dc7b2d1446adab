#!/bin/sh
# placeholder.sh CERTIFICATE KEY: nginx does not start without a certificate. Until there is one, this one, which is for
# no name and which nobody trusts, keeps its place.
set -eu
[ -s "$1" ] && [ -s "$2" ] && exit 0
umask 022
directory=$(dirname "$1")
# The role certificate switches a link, and never writes through it.
if [ "$directory" = /var/lib/gpufleet-certificate/current ]; then
    mkdir -p /var/lib/gpufleet-certificate/placeholder
    ln -sfn placeholder "$directory"
else
    mkdir -p "$directory" "$(dirname "$2")"
fi
umask 077
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -sha256 \
    -subj "/O=gpufleet.monitoring/CN=gpufleet placeholder" -keyout "$2" -out "$1" 2>/dev/null
chmod 0644 "$1"
