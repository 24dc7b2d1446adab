# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How the controller hands files to a host whose module asks for them."""

from __future__ import annotations

import typing as t
from pathlib import Path

from ansible.plugins.action import ActionBase


def hand_over(action: ActionBase, files: t.Mapping[str, Path]) -> dict[str, str]:
    """Copy files, by the names that they are to have, to the task's directory on the host.

    Returns name -> path there. Raises AnsibleError where the host cannot be reached or does not take one.
    """
    shell = action._connection._shell
    if shell.tmpdir is None:  # a pipelined module needs none
        action._make_tmp_path()
    there = {
        name: action._transfer_file(str(file), shell.join_path(shell.tmpdir, name)) for name, file in files.items()
    }
    action._fixup_perms2((shell.tmpdir, *there.values()))
    return there
