"""What an operator installs: all that is needed and nothing else, and each part of it explained by ansible-doc."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(sys.executable).parent
COLLECTION = "ansible_collections/gpufleet/monitoring"
# Whatever else is at the top of the repository is a developer's.
OPERATORS = {"docs", "files", "inventories", "meta", "playbooks", "plugins", "roles"}
OPERATORS |= {"CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md", "SECURITY.md"}
OPERATORS |= {"execution-environment.yml"}
LARGEST = 1_000_000


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    build = tmp_path_factory.mktemp("build")
    run(build, "ansible-galaxy", "collection", "build", ROOT, "--output-path", build)
    (archive,) = build.glob("*.tar.gz")
    return archive


def run(collections: Path, program: str, *arguments: str | Path) -> str:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")},
        "ANSIBLE_COLLECTIONS_PATH": str(collections),
    }
    command = [TOOLS / program, *arguments]
    done = subprocess.run(command, cwd=collections, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_archive_has_what_an_operator_needs_and_no_more(archive):
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    wanted = {name for name in tracked.split("\0") if name.partition("/")[0] in OPERATORS}
    wanted -= {name for name in wanted if name.startswith("docs/") and name.endswith(".py")}  # they write the pages
    with tarfile.open(archive) as opened:
        found = {member.name for member in opened if not member.isdir()}
    assert found == wanted | {"MANIFEST.json", "FILES.json"}
    assert archive.stat().st_size < LARGEST


def test_ansible_doc_explains_every_role_and_plugin(archive):
    collections = archive.parent
    run(collections, "ansible-galaxy", "collection", "install", "--offline", archive, "-p", collections)
    assert (collections / COLLECTION).is_dir()
    explained = json.loads(run(collections, "ansible-doc", "--metadata-dump", "gpufleet.monitoring"))["all"]
    for kind, folder in (("module", "modules"), ("filter", "filter"), ("lookup", "lookup")):
        names = {f"gpufleet.monitoring.{path.stem}" for path in (ROOT / "plugins" / folder).glob("*.py")}
        assert set(explained[kind]) == names
        for name, parts in explained[kind].items():
            assert parts["doc"]["short_description"] and parts["examples"] and parts["return"], name
    callbacks = {f"gpufleet.monitoring.{path.stem}" for path in (ROOT / "plugins/callback").glob("*.py")}
    assert set(explained["callback"]) == callbacks
    roles = {f"gpufleet.monitoring.{path.parents[1].name}" for path in (ROOT / "roles").glob("*/tasks/main.yml")}
    assert set(explained["role"]) == roles
    for name, parts in explained["role"].items():
        assert parts["entry_points"]["main"]["short_description"], name


def test_one_version_is_spoken_of_everywhere():
    version = yaml.safe_load((ROOT / "galaxy.yml").read_text())["version"]
    assert f'__version__ = "{version}"' in (ROOT / "files/gpufleet/__init__.py").read_text()
    assert f'version = "{version}"' in (ROOT / "files/pyproject.toml").read_text()
    assert f"\n## {version} " in (ROOT / "CHANGELOG.md").read_text()
    environment = yaml.safe_load((ROOT / "execution-environment.yml").read_text())
    (collection,) = environment["dependencies"]["galaxy"]["collections"]
    (file,) = environment["additional_build_files"]
    assert collection["name"] == file["src"] == f"dist/gpufleet-monitoring-{version}.tar.gz"
