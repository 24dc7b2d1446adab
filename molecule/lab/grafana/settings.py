"""STAND-IN for Grafana: grafana.ini, as gopkg.in/ini.v1 and Grafana's pkg/setting read it."""

import os
import re
import socket
from pathlib import Path

VARIABLE = re.compile(r"\$(|__\w+){([^}]+)}")
REFERENCE = re.compile(r"%\(([^)]+)\)s")


class SettingsError(Exception):
    """Grafana does not start."""


def parse(text, name):
    """Return section -> key -> value. A # or ; ends a value unless it is in triple quotes or backticks."""
    sections = {"": {}}
    current = sections[""]
    for line in text.splitlines():
        line = line.strip()
        if not line or line[0] in "#;":
            continue
        if line[0] == "[":
            if "]" not in line:
                raise SettingsError(f'failed to parse "{name}": unclosed section: {line}')
            current = sections.setdefault(line[1 : line.rindex("]")], {})
            continue
        key, delimiter, value = _split(line)
        if not delimiter:
            raise SettingsError(f'failed to parse "{name}": key-value delimiter not found: {line}')
        current[key] = _value(value)
    return sections


def _split(line):
    match = re.match(r"([^=:]*?)\s*([=:])\s*(.*)", line)
    return match.groups() if match else (line, "", "")


def _value(text):
    for quote in ('"""', "`"):
        if text.startswith(quote) and text.rfind(quote) > 0:
            return text[len(quote) : text.rindex(quote)]
    text = re.split("[#;]", text)[0].strip()
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
    return text[1:-1] if quoted else text


def expand(text):
    """Replace ${VARIABLE}, $__env{VARIABLE} and $__file{PATH}."""
    for kind in ("env", "file"):
        for whole, name, argument in [(m[0], m[1], m[2]) for m in VARIABLE.finditer(text)]:
            if name == f"__{kind}" or (name == "" and kind == "env"):
                text = text.replace(whole, _environment(argument) if kind == "env" else _file(argument), 1)
    return text


def _environment(name):
    return os.environ.get(name, "") or (socket.gethostname() if name == "HOSTNAME" else "")


def _file(path):
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        raise SettingsError(f"open {path}: {error.strerror.lower()}") from error


class Settings:
    """The configuration: defaults of the release, what is not empty in the file, the environment."""

    def __init__(self, home, config):
        self.home = Path(home)
        defaults = self.home / "conf/defaults.ini"
        if not defaults.exists():
            raise SettingsError(
                "Could not find config defaults, make sure homepath command line parameter is set or working directory "
                "is homepath"
            )
        self.sections = parse(defaults.read_text(), defaults)
        if config:
            try:
                own = parse(Path(config).read_text(), config)
            except OSError as error:
                raise SettingsError(f'failed to parse "{config}": open {config}: {error.strerror.lower()}') from error
            for section, keys in own.items():
                self.sections.setdefault(section, {}).update({key: value for key, value in keys.items() if value})
        for section, keys in self.sections.items():
            for key in keys:
                self._resolve(section, key)

    def _resolve(self, section, key):
        name = re.sub(r"[.-]", "_", f"GF_{section or 'DEFAULT'}_{key}".upper())
        try:
            self.sections[section][key] = expand(os.environ.get(name) or self.sections[section][key])
        except SettingsError as error:
            raise SettingsError(f"got error while expanding {section}.{key} with expander 'file': {error}") from error

    def get(self, section, key):
        """Return a value, with %(other)s of the same section filled in."""
        keys = self.sections.get(section, {})
        value = keys.get(key, "")
        for _ in range(99):
            match = REFERENCE.search(value)
            if not match or match[1] not in keys:
                break
            value = value.replace(match[0], keys[match[1]])
        return value

    def flag(self, section, key):
        """Return a switch."""
        return self.get(section, key).lower() in ("1", "t", "true", "yes", "on")

    def path(self, key):
        """Return a directory of [paths]; those that are relative are below the release."""
        return self.home / self.get("paths", key)
