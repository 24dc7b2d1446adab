"""The front door's certificate: gets it, renews it, hands it to nginx, and says when it ends.

/var/lib/gpufleet-certificate/current         link to the certificate that is served: fullchain.pem, privkey.pem
/var/lib/gpufleet-certificate/issued/NUMBER/  each one, complete, with what it was asked for in origin.json
/var/lib/gpufleet-certificate/ca              link to our own small CA, of mode selfsigned: ca.pem, ca.key
/var/lib/gpufleet-certificate/authorities/    what that link points to
/var/lib/gpufleet-certificate/acme/           certbot's directory, of mode letsencrypt

A certificate comes from one of the modes, is kept in the store, and served by the server; renewal does it all.
Whatever goes wrong, the certificate that is served stays. Private keys are root's alone. Python's standard library and
the openssl and certbot of the distribution, nothing else.
"""
