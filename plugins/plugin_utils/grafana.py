# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What Grafana is told: dashboards, data sources, passwords. What it would ignore, or only log, is said beforehand."""

from __future__ import annotations

import json
import re
import typing as t
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath

CREDENTIALS = "/run/credentials/grafana.service/"
_FILE = re.compile(r"\$__file\{([^}]*)\}")
_SECRET_KEY = re.compile(
    r"(password|secret|token|(secret|private|api|access|account)_key|connstr|connection_string)$", re.IGNORECASE
)
_UID = re.compile(r"[a-zA-Z0-9_-]{1,40}")  # pkg/util/shortid_generator.go


# -- passwords ----------------------------------------------------------------------------------

SHORTEST = 12
_FEWEST_CHARACTERS = 6  # different ones
_SHORTEST_OF_ITS_OWN = 8  # characters beside these words, of Grafana and of the manuals that people copy from
_KNOWN = (
    *("your_secure_password", "strongpassword", "ds01admin", "password", "changeme", "grafana", "secret", "admin"),
    *("123456", "qwerty"),
)


def password_fault(password: str, user: str) -> str:
    """Say what is wrong with a password, without showing it; nothing if it will do."""
    if len(password) < SHORTEST:
        return f"is shorter than {SHORTEST} characters"
    if password != password.strip() or not password.isprintable():
        return "begins or ends with a space, or has a line break in it"
    if "${" in password or "$__" in password or "%(" in password:
        return "has ${, $__ or %( in it, which Grafana would replace"
    rest = password.lower()
    for word in (user.lower(), *_KNOWN):
        rest = rest.replace(word, "")
    if len(set(password)) < _FEWEST_CHARACTERS or len(rest) < _SHORTEST_OF_ITS_OWN:
        return "is a well-known one, or little more"
    return ""


def check_secret(where: str, key: str, text: str, secrets: Sequence[str]) -> list[str]:
    """Return what is wrong with a value: secrets in plain text, and files that systemd does not hand out."""
    fix = f"put it into grafana_secrets, and here $__file{{{CREDENTIALS}<name>}}"
    paths = _FILE.findall(text)
    for path in paths:
        if not path.startswith(CREDENTIALS):
            return [f"{where} refers to {path}, which is no secret of the service: {fix}"]
        if path[len(CREDENTIALS) :] not in secrets:
            return [f"{where} refers to the secret {path[len(CREDENTIALS) :]}, which grafana_secrets does not have"]
    if _SECRET_KEY.search(key) and text and not paths:
        return [f"{where} is in plain text: {fix}"]
    return []


# -- grafana.ini --------------------------------------------------------------------------------

# What has a variable of its own.
_VARIABLES = {
    "server.http_addr": "grafana_bind_address",
    "server.http_port": "grafana_port",
    "server.root_url": "grafana_external_url",
    "security.admin_user": "grafana_admin_user",
    "security.admin_password": "grafana_admin_password",
    "security.secret_key": "grafana_secret_key",
    "database.url": "grafana_database_host and those that follow it",
    **{
        f"database.{key}": f"grafana_database_{key}" for key in ("type", "host", "name", "user", "password", "ssl_mode")
    },
}


def check_config(config: Mapping[str, t.Any], own: Mapping[str, Mapping[str, t.Any]]) -> Iterable[str]:
    """Yield what is wrong with the user's sections, of which ``own`` would win: what Grafana would never see."""
    for section, keys in config.items():
        if not isinstance(keys, dict):
            yield f"section {section} is not a dictionary of keys and values"
            continue
        for key, value in keys.items():
            where = f"{section}.{key}"
            if where in _VARIABLES:
                yield f"{where} has a variable of its own: {_VARIABLES[where]}"
            elif key in own.get(section, {}):
                yield f"{where} is what the role needs it to be: leave it out"
            elif value is None or not str(value).strip():  # pkg/setting/setting.go, loadSpecifiedConfigFile
                yield f"{where} is empty, for which Grafana takes its default: say a value, or leave it out"


# -- data sources -------------------------------------------------------------------------------

_DATASOURCE_KEYS = frozenset(
    (
        *("name", "type", "uid", "url", "access", "orgId", "orgName", "user", "database", "basicAuth", "basicAuthUser"),
        *("withCredentials", "isDefault", "version", "correlations", "jsonData", "secureJsonData", "editable"),
        "apiVersion",
    )
)
_DEEP = ("jsonData", "secureJsonData")  # what a change adds to, key by key
_FIXED = ("name", "uid", "type", "isDefault", "orgId", "orgName")
# Those of Grafana's own that go to a place which is not said as a URL.
_WITHOUT_URL = ("cloudwatch", "stackdriver", "grafana-azure-monitor-datasource", "grafana-testdata-datasource")


# What os.ExpandEnv takes for a variable. Grafana calls it on what it has read from a file, too, where $$ does not help.
_ENVIRONMENT = re.compile(r"\$[\w{*#$@!?-]")


class Datasources(t.NamedTuple):
    """The collection's own data sources, what the user changes in them by uid, and the user's."""

    own: Sequence[Mapping[str, t.Any]]
    changes: Mapping[str, Mapping[str, t.Any]]
    others: Sequence[Mapping[str, t.Any]]

    def rows(self) -> list[dict[str, t.Any]]:
        """Return all of them as Grafana's provisioning files have them."""
        return [*(_changed(row, self.changes.get(row["uid"]) or {}) for row in self.own), *map(dict, self.others)]

    def faults(self, secrets: Sequence[str], contents: Mapping[str, t.Any]) -> list[str]:
        """Return what is wrong with them, without any of the secrets, whose names and known contents are given."""
        return [
            *(fault for row in self.own for fault in _own_faults(row, self.changes.get(row["uid"]) or {})),
            *_others_faults(self.own, self.others),
            *(f"{row.get('name')}: {fault}" for row in self.rows() for fault in _secret_faults(row, secrets, contents)),
        ]


def _changed(row: Mapping[str, t.Any], change: Mapping[str, t.Any]) -> dict[str, t.Any]:
    return {**row, **change, **{key: {**_dict(row, key), **_dict(change, key)} for key in _DEEP if key in change}}


def _dict(row: Mapping[str, t.Any], key: str) -> Mapping[str, t.Any]:
    return row[key] if isinstance(row.get(key), dict) else {}


def _own_faults(row: Mapping[str, t.Any], change: Mapping[str, t.Any]) -> Iterable[str]:
    url, variable = f"grafana_{row['uid']}_url", f"grafana_{row['uid']}_datasource"
    if not re.match(r"https?://[^/]", row["url"]):
        yield f"{url} is not http:// or https:// and a host"
    elif _has_password(row["url"]):
        yield f"{url} has a password in it: say basicAuth, basicAuthUser and secureJsonData in {variable}"
    if "url" in change:
        yield f"{variable}: url has a variable of its own: {url}"
    yield from (f"{variable}: {key} stays, since dashboards go by it" for key in _FIXED if key in change)
    yield from (f"{variable}: {fault}" for fault in _unknown_keys(change))


def _others_faults(own: Sequence[Mapping[str, t.Any]], others: Sequence[Mapping[str, t.Any]]) -> Iterable[str]:
    names, uids = [row["name"] for row in own], [row["uid"] for row in own]
    for number, row in enumerate(others, 1):
        missing = [key for key in ("name", "uid", "type") if not isinstance(row.get(key), str) or not row[key]]
        if missing:
            yield f"number {number} ({row.get('name', 'without a name')}) has no {' and no '.join(missing)}"
            continue
        yield from (f"{row['name']}: {fault}" for fault in _datasource_faults(row))
        if row["name"] in names:
            yield f"{row['name']}: there is a data source of this name already"
        if row["uid"] in uids:
            yield f"{row['name']}: the uid {row['uid']} is another data source's"
        names.append(row["name"])
        uids.append(row["uid"])


def _datasource_faults(row: Mapping[str, t.Any]) -> Iterable[str]:
    yield from _unknown_keys(row)
    if not _UID.fullmatch(row["uid"]):
        yield f"the uid {row['uid']} is not 1 to 40 letters, digits, - and _"
    if row.get("isDefault"):
        yield "isDefault is Prometheus's"
    if not row.get("url") and row["type"] not in _WITHOUT_URL:
        yield f"a data source of type {row['type']} needs a url"
    if _has_password(str(row.get("url", ""))):
        yield "there is a password in its url: say user, or basicAuthUser, and the password in secureJsonData"


def _unknown_keys(row: Mapping[str, t.Any]) -> Iterable[str]:
    yield from (f"Grafana knows no key {key}" for key in row if key not in _DATASOURCE_KEYS)
    yield from (f"{key} is not a dictionary" for key in _DEEP if not isinstance(row.get(key) or {}, dict))


def _has_password(url: str) -> bool:
    try:
        return bool(urllib.parse.urlsplit(url).password)
    except ValueError:  # an address in brackets that is none
        return False


def _secret_faults(row: Mapping[str, t.Any], secrets: Sequence[str], contents: Mapping[str, t.Any]) -> Iterable[str]:
    for key, value in _dict(row, "secureJsonData").items():
        yield from check_secret(f"secureJsonData.{key}", "secret", str(value), secrets)
    named = [path[len(CREDENTIALS) :] for path in _FILE.findall(json.dumps(row))]
    for name in dict.fromkeys(named):
        if _ENVIRONMENT.search(str(contents.get(name, ""))):
            yield (
                f"grafana_secrets.{name} has a $ in it, and Grafana would put a variable's value there, or nothing: "
                "choose a secret without one"
            )


# -- dashboards ---------------------------------------------------------------------------------


class Dashboard(t.NamedTuple):
    """A dashboard's file, and the folder that people find it in."""

    folder: str
    path: str
    content: str


def dashboard_files(dashboards: Sequence[Dashboard], directory: str) -> list[dict[str, str]]:
    """Return the files that have Grafana serve dashboards. Raises ValueError with all that is wrong.

    There is one directory for each folder, and a provider for each directory.
    """
    faults = [fault for dashboard in dashboards for fault in _dashboard_faults(dashboard)]
    if not faults:
        faults = [*_twice(dashboards), *_shared_directories(dashboards)]
    if faults:
        raise ValueError("\n- ".join(["dashboards cannot be used:", *faults]))
    folders = dict.fromkeys(dashboard.folder for dashboard in dashboards)
    provisioning = {"apiVersion": 1, "providers": [_provider(folder, directory) for folder in folders]}
    providers = f"{directory}/provisioning/dashboards/gpufleet.yaml"
    files = [
        {"path": f"{_directory(one.folder, directory)}/{PurePath(one.path).name}", "content": one.content}
        for one in dashboards
    ]
    # Grafana looks for changed dashboards itself.
    return [
        {"path": providers, "content": json.dumps(provisioning, indent=1) + "\n"},
        *({**file, "on_change": "none"} for file in files),
    ]


def _dashboard_faults(dashboard: Dashboard) -> Iterable[str]:
    try:
        data = json.loads(dashboard.content)
    except ValueError as error:
        yield f"{dashboard.path} is no JSON: {error}"
        return
    if not isinstance(data, dict) or ("panels" not in data and "dashboard" in data):
        yield f"{dashboard.path} is not the model of a dashboard: save that which Grafana shows as JSON Model"
        return
    if data.get("__inputs"):
        yield f"{dashboard.path} was exported for sharing, and asks for a data source: export it plain"
    if not isinstance(data.get("uid"), str) or not _UID.fullmatch(data["uid"]):
        yield f"{dashboard.path} has no uid of 1 to 40 letters, digits, - and _, by which links could find it"
    if not isinstance(data.get("title"), str) or not data["title"].strip():
        yield f"{dashboard.path} has no title"


def _twice(dashboards: Iterable[Dashboard]) -> Iterable[str]:
    """Yield dashboards of one uid, or in a folder of one title or one file name: the last one would win."""
    seen: dict[tuple[str, ...], str] = {}
    for one in dashboards:
        data = json.loads(one.content)
        marks = {
            ("uid", data["uid"]): f"the uid {data['uid']}",
            ("title", one.folder, data["title"]): f'the title "{data["title"]}" in the folder "{one.folder}"',
            ("name", one.folder, PurePath(one.path).name): f'the file name in the folder "{one.folder}"',
        }
        for mark, words in marks.items():
            if mark in seen:
                yield f"{seen[mark]} and {one.path} share {words}"
            seen.setdefault(mark, one.path)


def _shared_directories(dashboards: Iterable[Dashboard]) -> Iterable[str]:
    seen: dict[str, str] = {}
    for folder in dict.fromkeys(dashboard.folder for dashboard in dashboards):
        other = seen.setdefault(_directory(folder, ""), folder)
        if other != folder:
            yield f'the folders "{other}" and "{folder}" are too much alike: rename one'


def _directory(folder: str, directory: str) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", folder.lower()).strip("-") or "general"
    return f"{directory}/dashboards/{slug}"


def _provider(folder: str, directory: str) -> dict[str, t.Any]:
    return {
        "name": f"gpufleet {folder}",
        "orgId": 1,
        "folder": folder,
        "type": "file",
        "disableDeletion": False,
        "allowUiUpdates": False,
        "updateIntervalSeconds": 10,
        "options": {"path": _directory(folder, directory)},
    }
