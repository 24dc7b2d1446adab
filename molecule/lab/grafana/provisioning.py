"""STAND-IN for Grafana: provisioning, with what pkg/services/provisioning refuses and what it only logs."""

import hashlib
import json
import os
import re
from pathlib import Path

import yaml
from settings import SettingsError, expand


class ProvisioningError(Exception):
    """Grafana does not start, or ends."""


def _files(directory, logger, log):
    try:
        entries = sorted(directory.iterdir())
    except OSError as error:
        log(logger, "error", "can't read provisioning files from directory", path=directory, error=error)
        return
    for path in entries:
        if path.suffix in (".yaml", ".yml"):
            try:
                content = yaml.safe_load(path.read_text()) or {}
            except OSError as error:
                raise ProvisioningError(f"open {path}: {error.strerror.lower()}") from error
            except yaml.YAMLError as error:
                raise ProvisioningError(f"could not parse provisioning config file: {path.name}: {error}") from error
            if not isinstance(content, dict):
                raise ProvisioningError(f"{path.name}: yaml: cannot unmarshal into configVersion")
            yield content


def _interpolated(value):
    """$$ is a dollar, $__file{} and ${} are replaced, and so is $NAME, in what a file says as well."""
    if isinstance(value, dict):
        return {key: _interpolated(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_interpolated(item) for item in value]
    if not isinstance(value, str):
        return value
    parts = [re.sub(r"\$(\w+)", lambda name: os.environ.get(name[1], ""), expand(part)) for part in value.split("$$")]
    return "$".join(parts)


# -- data sources -------------------------------------------------------------------------------


def provision_datasources(directory, database, log):
    """Bring data sources to what the files say. Raises ProvisioningError."""
    try:
        configs = list(_files(directory, "provisioning.datasources", log))
        wanted = [_interpolated(entry) for config in configs for entry in config.get("datasources") or []]
    except (ProvisioningError, SettingsError) as error:
        raise ProvisioningError(f"Datasource provisioning error: {error}") from error
    if sum(bool(entry.get("isDefault")) for entry in wanted) > 1:
        raise ProvisioningError(
            "Datasource provisioning error: datasource.yaml config is invalid. Only one datasource per organization "
            "can be marked as default"
        )
    names = [entry["name"] for entry in wanted]
    for row in database.all("SELECT name FROM data_source WHERE prunable = 1"):
        if row["name"] not in names:
            database.do("DELETE FROM data_source WHERE name = ?", row["name"])
    prune = any(config.get("prune") for config in configs)
    for entry in wanted:
        _save_datasource(entry, prune, database, log)


def _save_datasource(entry, prune, database, log):
    name = entry["name"]
    uid = entry.get("uid") or "P" + hashlib.sha256(name.encode()).hexdigest()[:16].upper()
    if database.all("SELECT name FROM data_source WHERE uid = ? AND name != ?", uid, name):
        raise ProvisioningError("Datasource provisioning error: data source with the same uid already exists")
    log("provisioning.datasources", "info", "inserting datasource from configuration", name=name, uid=uid)
    row = (
        *(uid, name, entry.get("type", ""), entry.get("url", ""), bool(entry.get("isDefault"))),
        *(not entry.get("editable"), prune, json.dumps(entry.get("secureJsonData") or {})),
    )
    database.do("INSERT OR REPLACE INTO data_source VALUES (?, ?, ?, ?, ?, ?, ?, ?)", *row)


# -- dashboards ---------------------------------------------------------------------------------


class Dashboards:
    """The providers and what is on the disk for each."""

    def __init__(self, directory, database, log):
        self._database, self._log = database, log
        configs = _files(directory, "provisioning.dashboard", log)
        self.providers = [provider for config in configs for provider in config.get("providers") or []]
        for provider in self.providers:
            kind, path = provider.get("type") or "file", (provider.get("options") or {}).get("path")
            if kind != "file":
                raise ProvisioningError(f"failed to initialize file readers: type {kind} is not supported")
            if not isinstance(path, str):
                raise ProvisioningError("failed to load dashboards, path param is not a string")

    def provision(self):
        """Walk the disk: dashboards come, change and go."""
        names = [provider["name"] for provider in self.providers]
        for row in self._database.find_dashboards("provider != ''"):
            if row["provider"] not in names:
                self._database.delete_dashboard(row["uid"])
        uids = [uid for provider in self.providers for uid in self._walk(provider)]
        for uid in sorted({uid for uid in uids if uids.count(uid) > 1}):
            self._log("provisioning.dashboard", "error", "the same uid is used more than once", uid=uid)

    def _walk(self, provider):
        top = Path(provider["options"]["path"])
        if not top.is_dir():
            self._log("provisioning.dashboard", "warn", "Failed to provision config", error=f"stat {top}: no such file")
            return
        paths = [str(path) for path in sorted(top.rglob("*.json"))]
        known = {row["external_id"]: row for row in self._database.find_dashboards("provider = ?", provider["name"])}
        for path, row in known.items():
            if path not in paths:
                self._database.delete_dashboard(row["uid"])
        for path in paths:
            yield from self._load(path, provider, known.get(path))

    def _load(self, path, provider, row):
        try:
            data = json.loads(Path(path).read_text())
            if not data.get("title"):
                raise ValueError("Dashboard title cannot be empty")
        except (OSError, ValueError, AttributeError) as error:
            self._log("provisioning.dashboard", "error", "failed to load dashboard from", file=path, error=error)
            return
        data["uid"] = data.get("uid") or hashlib.sha256(path.encode()).hexdigest()[:14]
        updated = Path(path).stat().st_mtime
        if not row or row["updated"] != updated or row["uid"] != data["uid"]:
            if row:
                self._database.delete_dashboard(row["uid"])
            self._database.save_dashboard(data, provider.get("folder") or "", provider["name"], path, updated)
        yield data["uid"]
