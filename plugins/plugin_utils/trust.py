# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Texts that are templates because we say so, in all versions of ansible-core."""

from __future__ import annotations

__all__ = ["trust_as_template"]

try:
    from ansible.template import trust_as_template
except ImportError:  # before ansible-core 2.19, all texts are templates

    def trust_as_template(value: str) -> str:
        """Return the text as it is."""
        return value
