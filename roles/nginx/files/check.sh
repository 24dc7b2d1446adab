#!/bin/sh
# check.sh DIRECTORY: whether nginx accepts the copy of /etc/nginx in DIRECTORY. Changes that copy.
set -eu
find "$1" -type f -o -type l | while read -r file; do
    # A file that is a link becomes one of its own: what it points to is not ours to change.
    grep -Iq "/etc/nginx/\|ssl_certificate" "$file" 2>/dev/null || continue
    sed -i "s,/etc/nginx/,$1/,g" "$file"
done

# Before the first start, there is nothing yet at the certificate's place.
sh "$1/gpufleet/placeholder.sh" "$1/placeholder.pem" "$1/placeholder.key"
sed -n 's/^ *ssl_certificate\(_key\)\{0,1\} \(.*\);$/\2/p' "$1/conf.d/gpufleet.conf" | sort -u | while read -r path; do
    [ -e "$path" ] || sed -i \
        "s,ssl_certificate $path;,ssl_certificate $1/placeholder.pem;,;s,ssl_certificate_key $path;,ssl_certificate_key $1/placeholder.key;," \
        "$1/conf.d/gpufleet.conf"
done
exec /usr/sbin/nginx -t -q -c "$1/nginx.conf"
