from __future__ import annotations

import json

import pytest
from certificates import NAMES, Chain
from gpufleet.certificate import config as configuration
from gpufleet.certificate.modes import MODES
from gpufleet.certificate.renewal import bring as bring_it
from gpufleet.certificate.store import Store


@pytest.fixture
def state(tmp_path):
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


@pytest.fixture
def configure(tmp_path):
    """Write config.json, with files beside it: configure(mode="provided", files={"provided.pem": ...})."""

    def write(files=None, **changes):
        config = {
            "mode": "selfsigned",
            "names": NAMES,
            "selfsigned_days": 90,
            "acme_directory_url": "https://acme.test/dir",
            "acme_lineage": "front-door",
            "acme_dns": False,
            "acme_ca": False,
            "provided_ca": False,
            "textfile": "",
            "server": None,
            **changes,
        }
        (tmp_path / "config.json").write_text(json.dumps(config))
        for name, content in (files or {}).items():
            (tmp_path / name).write_text(content)
        return configuration.read(tmp_path / "config.json")

    return write


@pytest.fixture
def bring(state):
    """Bring the certificate to what a configuration says, and return what would be served."""

    def run(config, renew=False, server=None):
        store = Store(state)
        bring_it(MODES[config.mode](config, state), store, server, renew)
        return store.current()

    return run


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    return Chain(tmp_path_factory.mktemp("authority"))
