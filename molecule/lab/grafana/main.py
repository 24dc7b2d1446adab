"""STAND-IN for Grafana: `grafana server` and `grafana cli admin reset-admin-password`."""

import argparse
import json
import signal
import sqlite3
import sys
import threading
import time
import urllib.parse
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(HOME / "stand-in"))

import plugin_store  # noqa: E402
import provisioning  # noqa: E402
import web  # noqa: E402
from database import Database  # noqa: E402
from settings import Settings, SettingsError  # noqa: E402

RELEASE = json.loads((HOME / "stand-in/release.json").read_text())
# Since 11.3, what goes wrong in the database does not end the command line with an error.
SWALLOWS = tuple(int(number) for number in RELEASE["version"].split(".")[:2]) >= (11, 3)
POLL = 1.0  # seconds; Grafana takes updateIntervalSeconds


def log(logger, level, message, **fields):
    """Write a line as Grafana's console log has them."""
    words = {"logger": logger, "t": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "level": level, "msg": message}
    print(*(f"{name}={_quoted(value)}" for name, value in {**words, **fields}.items()), flush=True)


def _quoted(value):
    text = str(value)
    return json.dumps(text) if not text or set(text) & set(' ="') else text


def main():
    """Run a command; what went wrong ends the program as it ends Grafana."""
    if sys.argv[1:2] in (["-v"], ["--version"]):
        print(f"grafana version {RELEASE['version']}")
        return
    parser = argparse.ArgumentParser(prog="grafana", description="STAND-IN for Grafana")
    commands = parser.add_subparsers(required=True)
    server = commands.add_parser("server")
    server.set_defaults(run=serve)
    cli = commands.add_parser("cli")
    cli.set_defaults(run=reset_password)
    for command in (server, cli):
        command.add_argument("--homepath", default=".")
        command.add_argument("--config", default="")
    server.add_argument("--packaging", default="unknown")
    cli.add_argument("admin", choices=["admin"])
    cli.add_argument("command", choices=["reset-admin-password"])
    cli.add_argument("--password-from-stdin", action="store_true")
    cli.add_argument("--user-id", type=int, default=1)
    cli.add_argument("password", nargs="?", default="")
    arguments = parser.parse_args()
    try:
        arguments.run(arguments)
    except (SettingsError, provisioning.ProvisioningError, sqlite3.Error, OSError) as error:
        sys.exit(f"Error: \N{BALLOT X} {error}")


def open_database(settings):
    """Return the database, migrated and with its first user."""
    kind = settings.get("database", "type")
    if kind != "sqlite3":
        raise SettingsError("the stand-in has SQLite only" if kind == "postgres" else f"unknown database type: {kind}")
    path = settings.path("data") / settings.get("database", "path")
    database = Database(path, RELEASE["migrations"], log)
    if not settings.flag("security", "disable_initial_admin_creation"):
        words = (settings.get("security", name) for name in ("admin_user", "admin_password", "admin_email"))
        database.ensure_admin(*words)
    return database


def serve(arguments):
    """Be Grafana, as far as it goes."""
    settings = Settings(arguments.homepath, arguments.config)
    if urllib.parse.urlsplit(settings.get("server", "root_url")).scheme not in ("http", "https"):
        raise SettingsError("invalid root_url")
    log("settings", "info", "Starting Grafana: a STAND-IN, see README.md of its archive", version=RELEASE["version"])
    database = open_database(settings)
    if RELEASE["fails"]:
        raise SettingsError(RELEASE["fails"])
    directory = settings.path("provisioning")
    provisioning.provision_datasources(directory / "datasources", database, log)
    plugins = plugin_store.find([settings.path("plugins"), settings.path("bundled_plugins")], log)
    http = web.server(settings, RELEASE, database, plugins, log)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    threading.Thread(target=http.serve_forever, daemon=True).start()
    log("http.server", "info", "HTTP Server Listen", address=":".join(map(str, http.server_address[:2])))
    dashboards = provisioning.Dashboards(directory / "dashboards", database, log)
    while True:
        dashboards.provision()
        time.sleep(POLL)


def reset_password(arguments):
    """Set a user's password in the database."""
    settings = Settings(arguments.homepath, arguments.config)
    password = arguments.password
    if arguments.password_from_stdin:
        print("New Password: ", flush=True)
        password = sys.stdin.readline().rstrip("\n")
    if len(password) <= 4:
        raise SettingsError("new password is too short")
    database = open_database(settings)
    if database.set_password(arguments.user_id, password):
        print("Admin password changed successfully \N{HEAVY CHECK MARK}")
    elif not SWALLOWS:
        raise SettingsError("could not read user from database. Error: user not found")
    elif not database.all("SELECT id FROM user WHERE id = ?", arguments.user_id):
        print(
            "Admin user cannot be found \N{HEAVY BALLOT X}.\n\nPlease try to run the command again specifying a user-id"
        )


if __name__ == "__main__":
    main()
