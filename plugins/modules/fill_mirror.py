# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of fill_mirror, which plugins/action/fill_mirror.py runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fill_mirror
short_description: Bring all that the inventory's hosts download to a directory
version_added: "0.1.0"
author:
  - The gpufleet authors (@gpufleet)
description:
  - Finds what the roles of C(site.yml) would have each host download, by evaluating their tasks with the host's
    variables, and brings that to a directory with upstream's paths, which C(gpufleet_mirror_url) may then point at.
  - Each file is verified before it has its name there - by the checksum that the inventory has, by upstream's list of
    checksums, by the index of its repository - and is noted in the lock file.
  - A file that is there and is as the lock has it is not asked for again, so that a mirror that is complete needs no
    network.
  - A file that differs from the lock, here or upstream, is an error that names it, and the lock stays as it was.
  - Of an apt repository it brings the key, the signed index and the packages that are needed, with those that these
    depend on in the same repository.
  - Where C(gpufleet_mirror_packages) is true for a host, the same goes for Debian's and Ubuntu's packages that the
    roles install, with all that these depend on. Packages of priority C(required) are taken to be on every host.
  - Repositories for dnf, other packages of the distribution, and URLs of the inventory's own that are not below
    C(gpufleet_mirror_url), are noted in the lock as being elsewhere.
options:
  directory:
    description: The directory on the controller.
    type: path
    required: true
  lock_file:
    description: The lock file on the controller.
    type: path
    required: true
  source:
    description: What URLs, without their scheme, are put behind.
    type: str
    default: "https:/"
  update:
    description: Read lists of checksums, indexes and keys anew, and take what upstream has now.
    type: bool
    default: false
  prune:
    description: Remove files that the lock has and that no host needs any more.
    type: bool
    default: false
attributes:
  check_mode:
    support: partial
    description: Says what would be fetched, as far as indexes that are not there yet need not be read for it.
  diff_mode:
    support: full
    description: Shows the lock file.
  action:
    support: full
    description: It runs on the controller, and connects to no host.
  async:
    support: none
    description: It runs on the controller.
  bypass_host_loop:
    support: full
    description: It runs once for all hosts of the inventory.
"""

EXAMPLES = r"""
- name: Fill a mirror
  hosts: all:localhost
  gather_facts: false
  tasks:
    - name: The mirror has all that the inventory needs
      gpufleet.monitoring.fill_mirror:
        directory: /srv/gpufleet-mirror
        lock_file: "{{ inventory_dir }}/mirror.lock.json"
"""

RETURN = r"""
fetched:
  description: Paths of files that were fetched, or in check mode would be.
  returned: success
  type: list
  elements: str
  sample: [github.com/prometheus/prometheus/releases/download/v3.14.0/sha256sums.txt]
removed:
  description: Paths of files that were removed.
  returned: success
  type: list
  elements: str
  sample: []
unneeded:
  description: Paths of files that no host needs any more, and that are still there.
  returned: success
  type: list
  elements: str
  sample: []
packages:
  description: Packages of the distribution that the roles install, which the mirror does not have.
  returned: success
  type: list
  elements: str
  sample: [nginx, openssl]
"""
