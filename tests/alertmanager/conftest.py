"""Alertmanager itself, with the configuration that the role makes of variables, and who it tells."""

from __future__ import annotations

import contextlib
import email
import email.policy
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from aiosmtpd.controller import Controller
from gpufleet_lab import mirror

ROLE = Path(__file__).resolve().parents[2] / "roles/alertmanager"
ANSIBLE = Path(sys.executable).with_name("ansible-playbook")
# Alertmanager 0.33 does not survive less of Telegram's answer. Slack says "ok", the others' answers are not read.
TELEGRAM = {"ok": True, "result": {"message_id": 1, "date": 1, "chat": {"id": 7, "type": "group"}}}
CREDENTIALS = "/run/credentials/alertmanager.service"


@pytest.fixture(scope="session")
def release(tmp_path_factory) -> Path:
    """The mirror's current release, whose program looks for its files beside itself."""
    (archive,) = mirror.path().rglob(f"alertmanager-{mirror.versions(mirror.path())['alertmanager']['current']}.*.gz")
    installed = b"/opt/gpufleet/alertmanager/current"
    # In a compiled program, a text has its place.
    directory = tmp_path_factory.mktemp("r")
    link = Path("/tmp") / f"alertmanager-{directory.parent.name}".ljust(len(installed) - len("/tmp/"), "_")
    assert len(str(link)) == len(installed)
    shutil.unpack_archive(archive, directory)
    (found,) = directory.iterdir()
    program = found / "alertmanager"
    program.write_bytes(program.read_bytes().replace(installed, str(link).encode()))
    link.symlink_to(found)
    yield found
    link.unlink()


@pytest.fixture(scope="session")
def render(tmp_path_factory):
    """Have the role's variables make the files of /etc/alertmanager: case -> variables becomes case -> directory."""

    def run(cases: dict[str, dict]) -> dict[str, Path]:
        directory = tmp_path_factory.mktemp("rendered")
        for name in ("templates", "files"):  # where lookups of a role look
            (directory / name).symlink_to(ROLE / name)
        role = [yaml.safe_load((ROLE / part / "main.yml").read_text()) for part in ("defaults", "vars")]
        variables = {**role[0], **role[1], "out": str(directory), "ansible_connection": "local"}
        variables["ansible_python_interpreter"] = sys.executable
        inventory = {"all": {"vars": variables, "hosts": cases}}
        (directory / "hosts.yml").write_text(yaml.safe_dump(inventory))
        copy = {
            "dest": "{{ out }}/{{ inventory_hostname }}/{{ item.path | regex_replace('^/etc/alertmanager/', '') }}",
            "content": "{{ item.content | default(item.secret_content) }}",
            "mode": "0600",
        }
        directories = {
            "path": "{{ out }}/{{ inventory_hostname }}/{{ item }}",
            "state": "directory",
            "mode": "0700",
        }
        tasks = [
            {"ansible.builtin.file": directories, "loop": ["templates", "secrets"]},
            {"ansible.builtin.copy": copy, "loop": "{{ __alertmanager_files }}"},
        ]
        play = [{"hosts": "all", "gather_facts": False, "tasks": tasks}]
        (directory / "play.yml").write_text(yaml.safe_dump(play))
        done = subprocess.run(
            [ANSIBLE, "-i", directory / "hosts.yml", directory / "play.yml"],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        for case in cases:  # as in the module's validation: systemd hands secrets out only to the service
            file = directory / case / "alertmanager.yml"
            file.write_text(file.read_text().replace(f"{CREDENTIALS}/", f"{directory / case}/secrets/"))
        return {case: directory / case for case in cases}

    return run


class People:
    """Those who are told: a mail server, and a server for all that goes by HTTP. `calls` are (time, path, body)."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, str, dict]] = []
        self.mails: list[email.message.EmailMessage] = []
        self.refused: set[str] = set()
        people = self

        class Web(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                people.calls.append((time.time(), self.path, body))
                self.send_response(503 if self.path in people.refused else 200)
                self.end_headers()
                self.wfile.write(b"ok" if self.path == "/slack" else json.dumps(TELEGRAM).encode())

            def log_message(self, *_: object) -> None:
                pass

        class Mail:
            async def handle_DATA(self, server, session, envelope) -> str:  # noqa: N802 (aiosmtpd's name)
                policy = email.policy.default
                people.mails.append(email.message_from_bytes(envelope.content, policy=policy))
                return "250 OK"

        self.web = ThreadingHTTPServer(("127.0.0.1", 0), Web)
        self.mail = Controller(Mail(), hostname="127.0.0.1", port=free_port())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.web.server_port}"

    def called(self, path: str) -> list[dict]:
        return [body for _, called, body in list(self.calls) if called == path]

    @contextlib.contextmanager
    def there(self):
        threading.Thread(target=self.web.serve_forever, daemon=True).start()
        self.mail.start()
        try:
            yield self
        finally:
            self.mail.stop()
            self.web.shutdown()
            self.web.server_close()


@pytest.fixture(scope="session")
def people():
    with People().there() as found:
        yield found


class Alertmanager:
    """A running one."""

    def __init__(self, url: str) -> None:
        self.url = url

    def tell(self, *alerts: dict[str, str], over: bool = False, **annotations: str) -> None:
        """What Prometheus says: alerts by their labels, which fire, or are over."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time()))
        body = [
            {"labels": labels, "annotations": annotations, **({"endsAt": now} if over else {})} for labels in alerts
        ]
        request = urllib.request.Request(
            f"{self.url}/api/v2/alerts", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=5).close()

    def metric(self, name: str) -> float:
        """The sum of a metric's series."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def alertmanager(release, tmp_path):
    """Run Alertmanager in a rendered directory."""
    with contextlib.ExitStack() as stack:

        def run(directory: Path) -> Alertmanager:
            url = f"127.0.0.1:{free_port()}"
            command = [release / "alertmanager", "--config.file=alertmanager.yml", f"--storage.path={tmp_path}/data"]
            command += [f"--web.listen-address={url}", "--cluster.listen-address=", "--web.external-url=http://alerts"]
            command += ["--web.route-prefix=/"]
            log = stack.enter_context((tmp_path / "log").open("w"))
            process = stack.enter_context(subprocess.Popen(command, cwd=directory, stdout=log, stderr=log))
            stack.callback(process.kill)
            for _ in range(100):
                time.sleep(0.1)
                with contextlib.suppress(urllib.error.URLError):
                    urllib.request.urlopen(f"http://{url}/-/ready", timeout=5).close()
                    return Alertmanager(f"http://{url}")
            return pytest.fail((tmp_path / "log").read_text())

        yield run
