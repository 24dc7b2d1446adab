from __future__ import annotations

import pytest
from small_host import Host, Web


@pytest.fixture
def web():
    """Serve pages: web({"/": (200, "fine")})."""
    started = []

    def serve(pages):
        started.append(Web(pages))
        return started[-1]

    yield serve
    for one in started:
        one.server.shutdown()
        one.server.server_close()


@pytest.fixture
def host(tmp_path, web, monkeypatch):
    made = Host(tmp_path, web)
    monkeypatch.setenv("PATH", f"{made.units}:/usr/bin:/bin")
    return made
