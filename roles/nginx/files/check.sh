#!/bin/sh
# check.sh DIRECTORY: whether nginx accepts the copy of /etc/nginx in DIRECTORY. Changes that copy.
set -eu
umask 027 # nginx -t makes the logs that are not there yet
find "$1" '(' -type f -o -type l ')' | while read -r file; do
    # A link becomes a file of its own here: what it points to is not ours to change.
    if grep -Iqs /etc/nginx/ "$file"; then sed -i "s,/etc/nginx/,$1/,g" "$file"; fi
done

# Before the first start, there is nothing yet at the certificate's place.
sh "$1/gpufleet/placeholder.sh" "$1/placeholder.pem" "$1/placeholder.key"
sed -n 's/^ssl_certificate\(_key\)\{0,1\} \(.*\);$/\2/p' "$1/gpufleet/tls.conf" | while read -r path; do
    [ -e "$path" ] || touch "$1/missing"
done
[ ! -e "$1/missing" ] || sed -i "s,^ssl_certificate .*,ssl_certificate $1/placeholder.pem;,
    s,^ssl_certificate_key .*,ssl_certificate_key $1/placeholder.key;," "$1/gpufleet/tls.conf"
exec /usr/sbin/nginx -t -q -c "$1/nginx.conf"
