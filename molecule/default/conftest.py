"""The fleet that this scenario's tests change, and find again as it was."""

from __future__ import annotations

import pytest
from fleet import VARIABLES, WORKERS
from gpufleet_lab.playbook import run_playbook


@pytest.fixture
def fleet(inventory):
    """The inventory of the fleet; whatever a test did to the hosts is undone after it."""
    yield inventory(WORKERS, **VARIABLES)
    done = run_playbook("site", inventory=inventory(WORKERS, **VARIABLES))
    assert done.rc == 0, done.messages()
