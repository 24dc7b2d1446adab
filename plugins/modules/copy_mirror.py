#!/usr/bin/python
# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: copy_mirror
short_description: Copy a mirror from the controller to the host that serves it
version_added: "0.1.0"
description:
  - Compares the files on the host with the lock, by SHA-256, in one round trip; only what the host lacks, or has
    otherwise, is handed over, and it is verified again there.
author:
  - The gpufleet authors (@gpufleet)
attributes:
  check_mode:
    description: Says what would be copied.
    support: full
  diff_mode:
    description: There is nothing to compare but sums.
    support: none
  platform:
    description: Any Linux.
    support: full
    platforms: linux
options:
  source:
    description: The directory on the controller, as M(gpufleet.monitoring.fill_mirror) has filled it.
    type: path
    required: true
  lock_file:
    description: The lock file on the controller.
    type: path
    required: true
  directory:
    description: The directory on the host.
    type: path
    required: true
  prune:
    description: Remove what an earlier run copied and the lock has no longer.
    type: bool
    default: false
  files:
    description: SHA-256 of each file, by its path. The action plugin sets it.
    type: dict
    default: {}
  arrived:
    description: Where on the host files lie that were handed over, by their path. The action plugin sets it.
    type: dict
    default: {}
requirements:
  - python >= 3.9 on the host
"""

EXAMPLES = r"""
- name: The mirror is on the master
  gpufleet.monitoring.copy_mirror:
    source: /srv/gpufleet-mirror
    lock_file: "{{ inventory_dir }}/mirror.lock.json"
    directory: /srv/gpufleet-mirror
"""

RETURN = r"""
copied:
  description: Paths of the files that were copied, or in check mode would be.
  returned: success
  type: list
  elements: str
  sample: []
removed:
  description: Paths of the files that were removed, or in check mode would be.
  returned: success
  type: list
  elements: str
  sample: []
"""

import os
import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import mirror

ARGUMENTS = {
    "source": {"type": "path", "required": True},
    "lock_file": {"type": "path", "required": True},
    "directory": {"type": "path", "required": True},
    "prune": {"type": "bool", "default": False},
    "files": {"type": "dict", "default": {}},
    "arrived": {"type": "dict", "default": {}},
}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    os.umask(0o022)
    try:
        module.exit_json(**_run(module))
    except (mirror.CopyError, OSError) as error:
        module.fail_json(f"copy_mirror: {error}. What is served stays as it is")


def _run(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    directory, files, arrived = Path(params["directory"]), params["files"], params["arrived"]
    others = mirror.others(directory, files)  # before anything changes: it may say that something is wrong
    if arrived:
        mirror.place(directory, files, arrived)
    # What has arrived was verified as it was placed.
    lacks = mirror.missing(directory, {path: sha256 for path, sha256 in files.items() if path not in arrived})
    if lacks and not module.check_mode:
        return {"changed": False, "wants_files": lacks}
    removed, kept = (others, []) if params["prune"] else ([], others)
    if not module.check_mode:
        mirror.remove(directory, removed)
        mirror.note(directory, [*files, *kept])
    copied = sorted({*lacks, *arrived})
    return {"changed": bool(copied or removed), "copied": copied, "removed": removed}


if __name__ == "__main__":
    main()
