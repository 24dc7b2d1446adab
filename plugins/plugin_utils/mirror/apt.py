# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Apt repositories, read as apt does: InRelease, Packages, and which packages make what is wanted whole.

Signatures are for the hosts to check, by their own apt, against the vendor's key: the index stays as it was signed.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import typing as t
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cmp_to_key

from ...module_utils.native_service.packages import matches

# In the order in which apt would rather have them.
INDEXES: dict[str, Callable[[io.BytesIO], t.Any]] = {
    "Packages.xz": lzma.open,
    "Packages.bz2": bz2.open,
    "Packages.gz": gzip.open,
    "Packages": lambda content: content,
}
LONGEST = 1 << 29  # bytes of an index, unpacked: ten times Debian's. Who signed it is for the hosts to find out.


class AptError(Exception):
    """A repository cannot be used. The text says why."""


Wanted = tuple[str, str]  # a package's name, and its version or ""


class Package(t.NamedTuple):
    """One entry of the index."""

    name: str
    version: str
    path: str  # with the repository's URL, without the scheme
    sha256: str
    depends: str
    provides: str
    assumed: bool  # no host of that distribution is without it


def index_of(release: str, directory: str = "") -> tuple[str, str]:
    """Return name and SHA-256 of the index that an InRelease file has.

    Without a ``directory``, as main/binary-amd64/, it is that of a flat repository. Raises AptError.
    """
    section = re.search(r"^SHA256:[^\n]*\n((?: .*\n)+)", release.replace("\r", ""), re.MULTILINE)
    rows = [line.split() for line in section[1].splitlines()] if section else []
    sums = {row[2].removeprefix("./"): row[0] for row in rows if len(row) == 3}
    for name in INDEXES:
        if f"{directory}{name}" in sums:
            return f"{directory}{name}", sums[f"{directory}{name}"]
    if directory:
        raise AptError(f"its InRelease has no SHA-256 of a file {directory}Packages")
    raise AptError("its InRelease has no SHA-256 of a file Packages beside it: it is no flat apt repository")


def parse(name: str, content: bytes, url: str) -> list[Package]:
    """Return the entries of an index of the repository at ``url``. Raises AptError."""
    try:
        unpacked = INDEXES[name.rpartition("/")[2]](io.BytesIO(content)).read(LONGEST + 1)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise AptError(f"{name} cannot be unpacked: {error}") from None
    if len(unpacked) > LONGEST:
        raise AptError(f"{name} is longer than {LONGEST >> 20} MiB: it is no index of packages")
    text = unpacked.decode("utf-8", "replace")
    return [found for block in re.split(r"\n\s*\n", text) if (found := _package(block, url))]


def _package(block: str, url: str) -> Package | None:
    fields = dict(re.findall(r"^([A-Za-z0-9-]+):[ \t]*(.*(?:\n[ \t].*)*)", block, re.MULTILINE))
    if not {"Package", "Version", "Filename", "SHA256"} <= fields.keys():
        return None
    depends = ", ".join(fields[name] for name in ("Pre-Depends", "Depends") if fields.get(name))
    path = re.sub(r"^(\./)+", "", fields["Filename"])
    assumed = fields.get("Essential") == "yes" or fields.get("Priority") == "required"
    sha256, provides = fields["SHA256"].lower(), fields.get("Provides", "")
    return Package(fields["Package"], fields["Version"], f"{url}/{path}", sha256, depends, provides, assumed)


def choose(wanted: Collection[Wanted], packages: Iterable[Package]) -> dict[Package, list[Wanted]]:
    """Return the packages that are wanted, by name and version, and those that they need among the same packages.

    Each comes with those of ``wanted`` that it is for. What no host is without does not come along. Raises AptError.
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
    # The newest of each name, as apt would have it.
    virtual: dict[str, list[tuple[Package, str]]] = {}
    for versions in preferred.values():
        for provided in versions[0].provides.split(",") if versions[0].provides else []:
            name, _, version = _parse(provided)
            virtual.setdefault(name, []).append((versions[0], version))
    chosen: dict[Package, list[Wanted]] = {}
    for one in wanted:
        found = next((package for package in by_name.get(one[0], []) if _is(package, one)), None)
        if found is None:
            has = ", ".join(package.version for package in by_name.get(one[0], [])) or "none"
            raise AptError(f"it has no {' '.join(one)}".rstrip() + f", but {has}")
        _add(found, one, lambda relation: _which(relation, preferred, virtual), chosen)
    return chosen


def _is(package: Package, wanted: Wanted) -> bool:
    return package.name == wanted[0] and matches(package.version, wanted[1])


def _add(
    package: Package,
    reason: Wanted,
    which: Callable[[str], list[Package]],
    chosen: dict[Package, list[Wanted]],
) -> None:
    """Add a package and all that it needs."""
    waiting = [package]
    while waiting:
        package = waiting.pop()
        reasons = chosen.setdefault(package, [])
        if reason not in reasons:
            reasons.append(reason)
            waiting += _needed(package, which)


def _needed(package: Package, which: Callable[[str], list[Package]]) -> list[Package]:
    needed: list[Package] = []
    for group in package.depends.split(",") if package.depends else []:
        # The first alternative that is here. What is not here at all is the distribution's, or the host's own affair.
        found = next((packages for relation in group.split("|") if (packages := which(relation))), [])
        if not any(one.assumed for one in found):
            needed += found
    return needed


def _which(
    relation: str, by_name: Mapping[str, list[Package]], virtual: Mapping[str, list[tuple[Package, str]]]
) -> list[Package]:
    """Return the newest package that satisfies one relation, or all that provide it: which one is apt's choice."""
    name, operator, version = _parse(relation)
    real = next((p for p in by_name.get(name, []) if _satisfies(p.version, operator, version)), None)
    if real:
        return [real]
    return [p for p, provided in virtual.get(name, []) if _satisfies(provided, operator, version)]


def _parse(relation: str) -> tuple[str, str, str]:
    """Return what a relation says: name, name (>= 1.2), name:any. An empty name is none."""
    match = re.match(r"\s*([a-z0-9][a-z0-9.+-]+)(?::\w+)?\s*(?:\(\s*(<<|<=|=|>=|>>|<|>)\s*([^\s)]+)\s*\))?", relation)
    return (match[1], match[2] or "", match[3] or "") if match else ("", "", "")


def _satisfies(version: str, operator: str, wanted: str) -> bool:
    return not operator or (bool(version) and _OPERATORS[operator](compare(version, wanted)))


# deb-control(5); < and > are what they were before dpkg 1.8.
_OPERATORS: dict[str, Callable[[int], bool]] = {
    "<": lambda order: order <= 0,
    ">": lambda order: order >= 0,
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
    return int(epoch) if epoch.isdigit() and colon else 0, _words(upstream), _words(revision)


def _words(text: str) -> tuple[t.Any, ...]:
    """Return what is compared: what are not digits, letter by letter and ~ before the end, and numbers, by turns."""
    pairs = re.findall(r"(\D*)(\d*)", text)
    return tuple(((*map(_weight, word), 0), int(number or 0)) for word, number in pairs)


def _weight(letter: str) -> int:
    return -1 if letter == "~" else ord(letter) if letter.isalpha() else ord(letter) + 256
