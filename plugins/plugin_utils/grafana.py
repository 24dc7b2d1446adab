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
_SECRET_KEY = re.compile(r"(password|secret|secret_key|token|private_key|api_key)$", re.IGNORECASE)
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
    named = [path[len(CREDENTIALS) :] for path in _FILE.findall(text) if path.startswith(CREDENTIALS)]
    unknown = [name for name in named if name not in secrets]
    if unknown:
        return [f"{where} refers to the secret {unknown[0]}, which grafana_secrets does not have"]
    if _SECRET_KEY.search(key) and text and not _FILE.search(text):
        return [f"{where} is in plain text: put it into grafana_secrets, and here $__file{{{CREDENTIALS}<name>}}"]
    return []


# -- data sources -------------------------------------------------------------------------------

_DATASOURCE_KEYS = frozenset(
    (
        *("name", "type", "uid", "url", "access", "orgId", "orgName", "user", "database", "basicAuth", "basicAuthUser"),
        *("withCredentials", "isDefault", "version", "correlations", "jsonData", "secureJsonData", "editable"),
        "apiVersion",
    )
)
# Those of Grafana's own that go to a place which is not said as a URL.
_WITHOUT_URL = ("cloudwatch", "stackdriver", "grafana-azure-monitor-datasource", "grafana-testdata-datasource")


def check_datasources(
    own: Sequence[Mapping[str, t.Any]], others: Sequence[Mapping[str, t.Any]], secrets: Sequence[str]
) -> list[str]:
    """Return what is wrong with data sources that the user describes."""
    faults = []
    names, uids = [row["name"] for row in own], [row["uid"] for row in own]
    for number, row in enumerate(others, 1):
        missing = [key for key in ("name", "uid", "type") if not isinstance(row.get(key), str) or not row[key]]
        if missing:
            faults.append(f"number {number} ({row.get('name', 'without a name')}) has no {' and no '.join(missing)}")
            continue
        faults += [f"{row['name']}: {fault}" for fault in _datasource_faults(row, secrets)]
        if row["name"] in names:
            faults.append(f"{row['name']}: there is a data source of this name already")
        if row["uid"] in uids:
            faults.append(f"{row['name']}: the uid {row['uid']} is another data source's")
        names.append(row["name"])
        uids.append(row["uid"])
    return faults


def _datasource_faults(row: Mapping[str, t.Any], secrets: Sequence[str]) -> Iterable[str]:
    yield from (f"Grafana knows no key {key}" for key in row if key not in _DATASOURCE_KEYS)
    if not _UID.fullmatch(row["uid"]):
        yield f"the uid {row['uid']} is not 1 to 40 letters, digits, - and _"
    if row.get("isDefault"):
        yield "isDefault is Prometheus's"
    if not row.get("url") and row["type"] not in _WITHOUT_URL:
        yield f"a data source of type {row['type']} needs a url"
    if urllib.parse.urlsplit(str(row.get("url", ""))).password:
        yield "there is a password in its url: say user, or basicAuthUser, and the password in secureJsonData"
    for key, value in (row.get("secureJsonData") or {}).items():
        yield from check_secret(f"secureJsonData.{key}", "secret", str(value), secrets)


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
