"""One file for every host: the same bytes from the same sources, and nothing that was not verified."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import zipfile

import pytest
from ansible_collections.gpufleet.monitoring.plugins.plugin_utils import zipapp


def wheel(name, text):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(f"{name}.py", text)
        archive.writestr("example.py", "raise SystemExit('not ours')")
        archive.writestr(f"{name}-1.dist-info/licenses/LICENSE", "free")
        archive.writestr(f"{name}-1.dist-info/RECORD", "")
        archive.writestr(f"{name}-1.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    return packed.getvalue()


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A distribution of one program that uses one library, and the mirror that has this."""
    root = tmp_path / "files"
    (root / "gpufleet/gpu_exporter").mkdir(parents=True)
    (root / "gpufleet/__init__.py").write_text('__version__ = "1.2.3"\n')
    (root / "gpufleet/gpu_exporter/__init__.py").write_text("")
    (root / "gpufleet/gpu_exporter/cli.py").write_text("import library\n\ndef main():\n    print(library.WORD)\n")
    content = wheel("library", "WORD = 'works'\n")
    sha256 = hashlib.sha256(content).hexdigest()
    (root / "wheels.txt").write_text(f"# one\n{sha256}  pypi.example/l/library-1-py3-none-any.whl\n")
    mirror = tmp_path / "mirror/pypi.example/l"
    mirror.mkdir(parents=True)
    (mirror / "library-1-py3-none-any.whl").write_bytes(content)
    monkeypatch.setattr(zipapp, "FILES", root)
    return tmp_path


def build(files, cache="cache"):
    return zipapp.build("gpu_exporter", f"file://{files}/mirror", files / cache)


def test_it_runs_on_a_bare_python(files):
    built = build(files)
    ran = subprocess.run([sys.executable, "-I", "-S", built.path], capture_output=True, text=True, check=True)
    assert ran.stdout == "works\n"
    assert built.path.name == "gpu-exporter.pyz"
    assert built.sha256 == hashlib.sha256(built.path.read_bytes()).hexdigest()


def test_equal_sources_give_equal_bytes_and_other_sources_another_version(files):
    first, second = build(files, "one"), build(files, "two")
    assert first.path.read_bytes() == second.path.read_bytes()
    source = files / "files/gpufleet/gpu_exporter/cli.py"
    source.write_text(source.read_text() + "# changed\n")
    third = build(files, "one")
    assert third.version != first.version
    assert third.version.startswith("1.2.3-")
    assert first.path.exists()  # hosts that have it can still be compared with it


def test_the_libraries_licences_travel_and_their_installers_files_do_not(files):
    names = zipfile.ZipFile(build(files).path).namelist()
    assert "library-1.dist-info/licenses/LICENSE" in names
    assert "library-1.dist-info/RECORD" not in names
    assert "example.py" not in names


def test_every_distribution_in_it_has_a_name(files):
    """PyTorch asks all distributions on the path for entry points, and cannot be imported beside one without a name."""
    code = f"import sys; sys.path = [{str(build(files).path)!r}, *sys.path[1:]]; from importlib.metadata import *; "
    code += "print([found.metadata['Name'] for found in distributions() if not found.metadata['Name']], "
    code += "version('library'))"
    ran = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[] 1\n"


def test_once_built_no_mirror_is_needed(files):
    build(files)
    (files / "mirror/pypi.example/l/library-1-py3-none-any.whl").unlink()
    assert build(files).path.exists()


def test_wheels_put_into_the_cache_by_hand_do_without_a_mirror(files):
    (files / "cache").mkdir()
    source = files / "mirror/pypi.example/l/library-1-py3-none-any.whl"
    source.rename(files / "cache/library-1-py3-none-any.whl")
    assert build(files).path.exists()


def test_a_wheel_that_is_not_what_was_released_is_refused(files):
    (files / "mirror/pypi.example/l/library-1-py3-none-any.whl").write_bytes(b"something else")
    with pytest.raises(zipapp.ZipappError, match=r"checksum of file://.*/library-1-py3-none-any.whl is wrong"):
        build(files)
    assert not [path for path in (files / "cache").rglob("*") if path.suffix in (".pyz", ".whl")]


def test_a_wheel_is_not_fetched_out_of_https(files, server, secure):
    name = "pypi.example/l/library-1-py3-none-any.whl"
    server.files[name] = (files / f"mirror/{name}").read_bytes()
    secure.redirects = {name: f"{server.base}/{name}"}
    with pytest.raises(zipapp.ZipappError, match="not HTTPS any more"):
        zipapp.build("gpu_exporter", secure.base, files / "cache")
    assert not server.requests


def test_a_mirror_without_the_wheel_says_what_to_do(files, server):
    with pytest.raises(zipapp.ZipappError, match="gpufleet_mirror_url"):
        zipapp.build("gpu_exporter", server.base, files / "cache")


def test_an_unknown_program_is_named(files):
    with pytest.raises(zipapp.ZipappError, match="no program 'x', only certificate, gpu_exporter"):
        zipapp.build("x", "", files)


@pytest.mark.parametrize("program", ["certificate", "monitoring_manage"])
def test_a_program_without_libraries_needs_no_mirror(tmp_path, program):
    built = zipapp.build(program, "http://192.0.2.1", tmp_path)
    command = [sys.executable, "-I", "-S", built.path, "--help"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("usage: ")
    assert {name.partition("/")[0] for name in zipfile.ZipFile(built.path).namelist()} == {"__main__.py", "gpufleet"}


def test_a_former_version_is_asked_for_by_its_name_and_may_be_on_the_host_alone(files):
    built = build(files)
    where = zipapp.place("gpu_exporter", built.version, files / "cache")
    assert where == built.path
    assert where.with_name("gpu-exporter.pyz.sha256").read_text().strip() == built.sha256
    assert not zipapp.place("gpu_exporter", "0.0.1-5f0c1d2e", files / "cache").exists()
