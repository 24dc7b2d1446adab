"""Whose a container or a process is."""

from __future__ import annotations

import os
import re
import typing as t

if t.TYPE_CHECKING:
    from ..config import AllocationsSection

UNKNOWN = "unknown"

# ds01-{group}-{user}.slice. A dash in a user's name is written \x2d, as systemd escapes it, or as it is.
_SLICE = re.compile(r"ds01-[^-/]+-([^/]+)\.slice")
_ESCAPED = re.compile(r"\\x([0-9a-fA-F]{2})")


def user_of_slice(path: str) -> str | None:
    """Return the user that a control group's path names, None when it names none. The innermost slice counts."""
    found = None
    for part in path.split("/"):
        match = _SLICE.fullmatch(part)
        if match:
            found = _ESCAPED.sub(lambda code: chr(int(code.group(1), 16)), match.group(1))
    return found


class Users:
    """The rules of the configuration, and the host's list of users."""

    def __init__(self, settings: AllocationsSection, passwd: str) -> None:
        self._labels = settings.user_labels
        self._rules = [(re.compile(pattern), user) for pattern, _, user in map(_split, settings.user_rules)]
        self._passwd = Passwd(passwd)

    def of_container(self, name: str, labels: t.Mapping[str, str], cgroup_parent: str) -> str:
        """Return a container's user: by slice, label, rule for its name, in this order."""
        labelled = (labels[key] for key in self._labels if labels.get(key))
        return user_of_slice(cgroup_parent) or next(labelled, None) or self._by_rule(name) or UNKNOWN

    def by_number(self, number: int) -> str:
        """Return a user's name, the number where there is no such user."""
        return self._passwd.name(number)

    def _by_rule(self, name: str) -> str | None:
        for pattern, template in self._rules:
            match = pattern.search(name)
            if match:
                user = match.expand(template)
                number = user[len("uid:") :] if user.startswith("uid:") else ""
                return self.by_number(int(number)) if re.fullmatch("[0-9]{1,10}", number) else user or None
        return None


def _split(rule: str) -> tuple[str, str, str]:
    return rule.partition(" => ")


class Passwd:
    """/etc/passwd, read again when it has changed. Only this file: what NSS asks may be a network away."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._version: tuple[int, int, int] | None = None
        self._names: dict[int, str] = {}

    def name(self, number: int) -> str:
        """Return the name of a user id, the number itself for an unknown one."""
        try:
            status = os.stat(self._path)
            version = (status.st_ino, status.st_size, status.st_mtime_ns)
            if version != self._version:
                with open(self._path, encoding="utf-8", errors="replace") as file:
                    self._names, self._version = parse_passwd(file), version
        except OSError:
            self._names, self._version = {}, None
        return self._names.get(number) or str(number)


def parse_passwd(lines: t.Iterable[str]) -> dict[int, str]:
    """Return names by number; the first counts, as for getpwuid(3). Lines of another form are left out."""
    names: dict[int, str] = {}
    for line in lines:
        fields = line.rstrip("\n").split(":")
        if len(fields) == 7 and fields[0] and re.fullmatch("[0-9]{1,10}", fields[2]):
            names.setdefault(int(fields[2]), fields[0])
    return names
