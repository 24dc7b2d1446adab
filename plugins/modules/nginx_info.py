#!/usr/bin/python
# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: nginx_info
short_description: Say what nginx of a host understands, and what its distribution left there
version_added: "0.1.0"
description:
  - Looks at nginx, or where it is not installed yet at what its distribution would install. Changes nothing.
author:
  - The gpufleet authors (@gpufleet)
attributes:
  check_mode:
    description: Changes nothing anyway.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
  platform:
    description: Debian and what comes from it.
    support: full
    platforms: linux
"""

EXAMPLES = r"""
- name: What does nginx understand here?
  gpufleet.monitoring.nginx_info:
  register: nginx
"""

RETURN = r"""
http2_directive:
  description: Whether HTTP/2 is a directive of its own (nginx 1.25.1), and not a word after C(listen).
  returned: always
  type: bool
post_quantum:
  description: Whether OpenSSL has the key exchange X25519MLKEM768 (3.5).
  returned: always
  type: bool
ipv6:
  description: Whether the kernel has IPv6.
  returned: always
  type: bool
default_site:
  description:
    - V(true) where C(/etc/nginx/sites-enabled/default) is, or will be, the distribution's welcome page, or what
      this collection has put in its place. V(false) where there is none, or one of the host's owner.
  returned: always
  type: bool
"""

import re
import ssl
import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

PROGRAM = Path("/usr/sbin/nginx")
OPENSSL = Path("/usr/bin/openssl")
SITE = Path("/etc/nginx/sites-enabled/default")
# The first line of the file that takes the place of the welcome page.
OURS = "# Written by gpufleet.monitoring"

Run = t.Callable[["list[str]"], "tuple[int, str, str]"]


def main() -> None:
    """Entry point."""
    module = AnsibleModule({}, supports_check_mode=True)
    module.exit_json(changed=False, **look(module.run_command, PROGRAM, OPENSSL, SITE))


def look(run: Run, program: Path, openssl: Path, site: Path) -> dict[str, t.Any]:
    """Return what is described in RETURN."""
    installed = program.exists()
    said = run([str(program), "-V"])[2] if installed else ""
    crypto = openssl_version(said if installed else run([str(openssl), "version"])[1] if openssl.exists() else "")
    return {
        # Distributions with OpenSSL 3.4 and newer have nginx 1.26 and newer.
        "http2_directive": version(said) >= (1, 25, 1) if installed else crypto >= (3, 4),
        "post_quantum": crypto >= (3, 5),
        "ipv6": Path("/proc/net/if_inet6").exists(),
        "default_site": not installed or is_default(run, site),
    }


def version(text: str) -> tuple[int, ...]:
    """Return the version in what ``nginx -V`` says."""
    found = re.search(r"nginx/([0-9.]+)", text)
    return tuple(int(part) for part in found[1].split(".")) if found else ()


def openssl_version(text: str) -> tuple[int, ...]:
    """Return the version in what ``nginx -V``, or ``openssl version``, says: of what runs, rather than was built with.

    Where nothing is said, Python's own is the distribution's as well, most of the time.
    """
    found = re.findall(r"OpenSSL ([0-9]+)[.]([0-9]+)", text)
    return tuple(int(part) for part in found[-1]) if found else tuple(ssl.OPENSSL_VERSION_INFO[:2])


def is_default(run: Run, site: Path) -> bool:
    """Whether the site is the distribution's as it was installed, or our own."""
    try:
        if site.read_text(errors="replace").startswith(OURS):
            return True
    except OSError:
        return False
    # Lines of path and MD5, by which dpkg tells whether a configuration file was changed (dpkg-query(1)).
    shipped = run(["dpkg-query", "--show", "--showformat=${Conffiles}\\n", "nginx-common"])[1]
    known = dict(line.split()[:2] for line in shipped.splitlines() if len(line.split()) >= 2)
    path = str(site.resolve())
    return path in known and run(["md5sum", path])[1].split()[:1] == [known[path]]


if __name__ == "__main__":
    main()
