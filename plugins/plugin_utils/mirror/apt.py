# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A flat apt repository, read as apt does: InRelease, Packages, and which packages make what is wanted whole.

Signatures are for the hosts to check, by their own apt, against the vendor's key: the index stays as it was signed.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import typing as t
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cmp_to_key

from ...module_utils.native_service.packages import matches

# In the order in which apt would rather have them.
INDEXES: dict[str, Callable[[bytes], bytes]] = {
    "Packages.xz": lzma.decompress,
    "Packages.bz2": bz2.decompress,
    "Packages.gz": gzip.decompress,
    "Packages": bytes,
}


class AptError(Exception):
    """A repository cannot be used. The text says why."""


Wanted = tuple[str, str]  # a package's name, and its version or ""


class Package(t.NamedTuple):
    """One entry of the index."""

    name: str
    version: str
    path: str  # below the repository
    sha256: str
    depends: str


def index_of(release: str) -> tuple[str, str]:
    """Return name and SHA-256 of the index that an InRelease file has. Raises AptError."""
    section = re.search(r"^SHA256:[^\n]*\n((?: .*\n)+)", release.replace("\r", ""), re.MULTILINE)
    rows = [line.split() for line in section[1].splitlines()] if section else []
    sums = {row[2].removeprefix("./"): row[0] for row in rows if len(row) == 3}
    for name in INDEXES:
        if name in sums:
            return name, sums[name]
    raise AptError("its InRelease has no SHA-256 of a file Packages beside it: it is no flat apt repository")


def parse(name: str, content: bytes) -> list[Package]:
    """Return the entries of an index. Raises AptError."""
    try:
        text = INDEXES[name](content).decode("utf-8", "replace")
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise AptError(f"{name} cannot be unpacked: {error}") from None
    return [found for block in re.split(r"\n\s*\n", text) if (found := _package(block))]


def _package(block: str) -> Package | None:
    fields = dict(re.findall(r"^([A-Za-z0-9-]+):[ \t]*(.*(?:\n[ \t].*)*)", block, re.MULTILINE))
    if not {"Package", "Version", "Filename", "SHA256"} <= fields.keys():
        return None
    depends = ", ".join(fields[name] for name in ("Pre-Depends", "Depends") if fields.get(name))
    path = re.sub(r"^(\./)+", "", fields["Filename"])
    return Package(fields["Package"], fields["Version"], path, fields["SHA256"].lower(), depends)


def choose(wanted: Collection[Wanted], packages: Iterable[Package]) -> dict[Package, list[Wanted]]:
    """Return the packages that are wanted, by name and version, and those that they need of the same repository.

    Each comes with those of ``wanted`` that it is for. Raises AptError.
    """
    by_name: dict[str, list[Package]] = {}
    for package in packages:
        by_name.setdefault(package.name, []).append(package)
    for versions in by_name.values():
        versions.sort(key=lambda package: cmp_to_key(compare)(package.version), reverse=True)
    # As apt does that is told both: what another one needs comes in the version that is wanted, not in the newest.
    preferred = {
        name: sorted(versions, key=lambda package: not any(_is(package, one) for one in wanted if one[1]))
        for name, versions in by_name.items()
    }
    chosen: dict[Package, list[Wanted]] = {}
    for one in wanted:
        found = next((package for package in by_name.get(one[0], []) if _is(package, one)), None)
        if found is None:
            has = ", ".join(package.version for package in by_name.get(one[0], [])) or "none"
            raise AptError(f"it has no {' '.join(one)}".rstrip() + f", but {has}")
        _add(found, one, preferred, chosen)
    return chosen


def _is(package: Package, wanted: Wanted) -> bool:
    return package.name == wanted[0] and matches(package.version, wanted[1])


def _add(
    package: Package,
    reason: Wanted,
    by_name: Mapping[str, list[Package]],
    chosen: dict[Package, list[Wanted]],
) -> None:
    reasons = chosen.setdefault(package, [])
    if reason in reasons:
        return
    reasons.append(reason)
    for group in package.depends.split(",") if package.depends else []:
        for alternative in group.split("|"):
            if needed := _best(alternative, by_name):
                _add(needed, reason, by_name, chosen)
                break  # what is not here is the distribution's


def _best(relation: str, by_name: Mapping[str, list[Package]]) -> Package | None:
    """Return the newest package that satisfies one relation: name, name (>= 1.2)."""
    match = re.match(r"\s*([a-z0-9][a-z0-9.+-]+)(?::\w+)?\s*(?:\(\s*([<>=]+)\s*([^\s)]+)\s*\))?", relation)
    if not match:
        return None
    name, operator, version = match.groups()
    return next(
        (p for p in by_name.get(name, []) if not operator or _OPERATORS[operator](compare(p.version, version))), None
    )


_OPERATORS: dict[str, Callable[[int], bool]] = {
    "<<": lambda order: order < 0,
    "<=": lambda order: order <= 0,
    "=": lambda order: order == 0,
    ">=": lambda order: order >= 0,
    ">>": lambda order: order > 0,
}


def compare(one: str, other: str) -> int:
    """Order two versions as dpkg does (deb-version(7)): negative, 0, or positive."""
    return (_parts(one) > _parts(other)) - (_parts(one) < _parts(other))


def _parts(version: str) -> tuple[t.Any, ...]:
    epoch, colon, rest = version.partition(":")
    upstream, _, revision = (rest if colon else version).rpartition("-")
    if not upstream:
        upstream, revision = revision, ""
    return int(epoch) if colon else 0, _words(upstream), _words(revision)


def _words(text: str) -> tuple[t.Any, ...]:
    """Return what is compared: what are not digits, letter by letter and ~ before the end, and numbers, by turns."""
    pairs = re.findall(r"(\D*)(\d*)", text)
    return tuple(((*map(_weight, word), 0), int(number or 0)) for word, number in pairs)


def _weight(letter: str) -> int:
    return -1 if letter == "~" else ord(letter) if letter.isalpha() else ord(letter) + 256
