"""The copy of a mirror on the host that serves it."""

from __future__ import annotations

import hashlib
import json
import os

import pytest
from ansible_collections.gpufleet.monitoring.plugins.module_utils import mirror

FILES = {f"a/{name}": hashlib.sha256(name.encode()).hexdigest() for name in ("one", "two")}


@pytest.fixture
def arrived(tmp_path):
    (tmp_path / "tmp").mkdir()
    for path in FILES:
        name = path.rpartition("/")[2]
        (tmp_path / "tmp" / name).write_text(name)
        (tmp_path / "tmp" / name).chmod(0o600)
    return {path: str(tmp_path / "tmp" / path.rpartition("/")[2]) for path in FILES}


def test_what_is_missing_or_otherwise_is_asked_for(tmp_path, arrived):
    served = tmp_path / "served"
    assert mirror.missing(served, FILES) == ["a/one", "a/two"]
    mirror.place(served, FILES, arrived)
    assert mirror.missing(served, FILES) == []
    (served / "a/two").write_text("evil")
    (served / "a/one").unlink()
    (served / "a/one").symlink_to("/etc/passwd")
    assert mirror.missing(served, FILES) == ["a/one", "a/two"]
    mirror.place(served, FILES, arrived)
    assert mirror.missing(served, FILES) == []
    assert not (served / "a/one").is_symlink()


def test_whoever_serves_may_read_it(tmp_path, arrived):
    before = os.umask(0o022)
    try:
        mirror.place(tmp_path / "served", FILES, arrived)
    finally:
        os.umask(before)
    assert (tmp_path / "served/a/one").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "served/a").stat().st_mode & 0o777 == 0o755


def test_what_arrives_otherwise_than_the_lock_has_it_is_refused(tmp_path, arrived):
    (tmp_path / "tmp/two").write_text("evil")
    with pytest.raises(mirror.CopyError, match="a/two did not arrive"):
        mirror.place(tmp_path / "served", FILES, arrived)
    assert not (tmp_path / "served/a/two").exists()
    assert [path.name for path in (tmp_path / "served/a").iterdir()] == ["one"]


OUTSIDE = ["../out", "a/../../out", "/etc/passwd", "a//one", "a/./one", "", ".", "a/"]


@pytest.mark.parametrize("path", [*OUTSIDE, "a/three"])
def test_nothing_else_is_taken(tmp_path, arrived, path):
    listed = {**FILES, path: FILES["a/one"]} if path in OUTSIDE else FILES
    with pytest.raises(mirror.CopyError, match="is no file of this mirror"):
        mirror.place(tmp_path / "served", listed, {path: arrived["a/one"]})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("known", [*([path] for path in OUTSIDE), [1], {"a/one": 1}, "a/one"])
def test_a_list_of_what_was_copied_that_leads_out_removes_nothing(tmp_path, arrived, known):
    served = tmp_path / "served"
    mirror.place(served, FILES, arrived)
    (tmp_path / "out").write_text("somebody's own")
    (served / mirror.MANIFEST).write_text(json.dumps(known))
    with pytest.raises(mirror.CopyError, match=mirror.MANIFEST):
        mirror.others(served, {})


def test_only_what_was_copied_goes(tmp_path, arrived):
    served = tmp_path / "served"
    mirror.place(served, FILES, arrived)
    mirror.note(served, list(FILES))
    (served / "own").write_text("somebody's own")
    left = {"a/one": FILES["a/one"]}
    assert mirror.others(served, FILES) == []
    assert mirror.others(served, left) == ["a/two"]
    mirror.remove(served, ["a/two"])
    mirror.remove(served, ["a/one"])
    assert sorted(path.name for path in served.iterdir()) == [mirror.MANIFEST, "own"]
