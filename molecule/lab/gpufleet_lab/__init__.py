"""The test lab: real Debian machines, a network of their own and a release mirror, in seconds.

Tests use `Lab` (the machines and the faults that a test can cause) and `playbook.run_playbook`.
"""

from .lab import Lab
from .system import LabError

__all__ = ["Lab", "LabError"]
