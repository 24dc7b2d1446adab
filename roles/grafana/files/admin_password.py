#!/usr/bin/python3
"""Sets the password of Grafana's first user when it has changed, and becomes Grafana: [--always] PROGRAM ARGUMENT...

The one in grafana.ini counts only when the database is made. Which one was set last is known by its hash, so that a
password that was changed in Grafana itself stays until there is a new one here.

It is not in ExecStartPre, which cannot read credentials before systemd 252 (https://github.com/systemd/systemd/pull/24734).
"""

import hashlib
import os
import secrets
import subprocess
import sys
from pathlib import Path

HOME = "/opt/gpufleet/grafana/current"
CONFIG = "/etc/grafana/grafana.ini"
STATE = Path(os.environ["STATE_DIRECTORY"])
APPLIED = STATE / "admin_password.applied"
# Grafana 11.3 and newer exit with 0 whether or not this was so (https://github.com/grafana/grafana/issues/102549).
DONE = b"Admin password changed successfully"


def main() -> None:
    """Set it, if there is something to set, and become Grafana."""
    always = sys.argv[1] == "--always"
    command = sys.argv[2 if always else 1 :]
    _apply(always)
    os.execv(command[0], command)  # noqa: S606 (no shell)


def _apply(always: bool) -> None:
    """Set the password, if it is another one. Where there may be a database elsewhere, ``always`` says so."""
    password = Path(os.environ["CREDENTIALS_DIRECTORY"], "admin_password").read_bytes().strip()
    if _is_applied(password):
        return
    # Where there is no database yet, Grafana makes it with this password.
    if (always or (STATE / "grafana.db").exists()) and not _set(password):
        _give_up()
        return
    salt = secrets.token_bytes(16)
    new = APPLIED.with_suffix(".new")
    new.write_text(f"{salt.hex()} {_hash(password, salt)}\n")
    new.replace(APPLIED)


def _set(password: bytes) -> bool:
    command = [f"{HOME}/bin/grafana", "cli", f"--homepath={HOME}", f"--config={CONFIG}"]
    command += ["admin", "reset-admin-password", "--password-from-stdin"]
    done = subprocess.run(
        command, input=password + b"\n", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    sys.stderr.buffer.write(done.stdout)
    return done.returncode == 0 and DONE in done.stdout


def _give_up() -> None:
    """End the start where that undoes a change: the run that made it puts the old password back, and tells.

    Where none was ever set from here, as with a database that was there before, people need Grafana more than that.
    """
    words = "The admin's password was not set: see above, and whether the user with the id 1 is there and is an admin."
    if APPLIED.exists():
        sys.exit(f"{words} The one that was set before still holds. To start all the same: rm {APPLIED}")
    print(f"{words} Grafana starts with the users that it has.", file=sys.stderr)


def _is_applied(password: bytes) -> bool:
    try:
        salt, known = APPLIED.read_text().split()
    except (FileNotFoundError, ValueError):
        return False
    return secrets.compare_digest(known, _hash(password, bytes.fromhex(salt)))


def _hash(password: bytes, salt: bytes) -> str:
    return hashlib.scrypt(password, salt=salt, n=1 << 14, r=8, p=1).hex()


if __name__ == "__main__":
    main()
