"""Words of others, made fit for a label."""

from __future__ import annotations


def label(words: object, longest: int = 200) -> str:
    """Return text that any label can hold. JSON may hold half a character, which UTF-8 cannot write."""
    return str(words)[:longest].encode("utf-8", "replace").decode()
