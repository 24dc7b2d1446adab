"""STAND-IN for Grafana: its database, with migrations that a release before them does not know."""

import hashlib
import json
import secrets
import sqlite3
import threading

MIGRATIONS = (
    ("create user table", "CREATE TABLE user (id INTEGER PRIMARY KEY, login TEXT UNIQUE, email TEXT, password TEXT,"
     " salt TEXT, is_admin INTEGER)"),
    ("create data_source table", "CREATE TABLE data_source (uid TEXT UNIQUE, name TEXT UNIQUE, type TEXT, url TEXT,"
     " is_default INTEGER, read_only INTEGER, prunable INTEGER, secrets TEXT)"),
    ("create dashboard table", "CREATE TABLE {dashboards} (uid TEXT UNIQUE, title TEXT, folder TEXT, data TEXT,"
     " provider TEXT, external_id TEXT, updated REAL)"),
    # The releases before read dashboards from the table of the old name.
    ("rename dashboard table to resource", "ALTER TABLE dashboard RENAME TO resource"),
    ("rename resource table to resource_v2", "ALTER TABLE resource RENAME TO resource_v2"),
)  # fmt: skip
TABLES = {3: "dashboard", 4: "resource", 5: "resource_v2"}


def encode_password(password, salt):
    """As Grafana's pkg/util/encoding.go."""
    return hashlib.pbkdf2_hmac("sha256", password.encode(), salt.encode(), 10000, 50).hex()


class Database:
    """One SQLite file, brought to what a release with so many migrations expects."""

    def __init__(self, path, migrations, log):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.dashboards = TABLES[migrations]
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        log("sqlstore", "info", "Connecting to DB", dbtype="sqlite3")
        self._migrate(MIGRATIONS[:migrations], log)
        self.all(f"SELECT uid FROM {self.dashboards} LIMIT 1")

    def _migrate(self, migrations, log):
        log("migrator", "info", "Starting DB migrations")
        self.do("CREATE TABLE IF NOT EXISTS migration_log (id INTEGER PRIMARY KEY, migration_id TEXT, sql TEXT)")
        known = {row["migration_id"] for row in self.all("SELECT migration_id FROM migration_log")}
        performed = 0
        for name, sql in migrations:
            if name in known:
                continue
            log("migrator", "info", "Executing migration", id=name)
            self.do(sql.format(dashboards=TABLES[3]))
            self.do("INSERT INTO migration_log (migration_id, sql) VALUES (?, ?)", name, sql)
            performed += 1
        log("migrator", "info", "migrations completed", performed=performed, skipped=len(migrations) - performed)

    def all(self, sql, *values):
        """Return rows."""
        with self._lock:
            return [dict(row) for row in self._connection.execute(sql, values)]

    def do(self, sql, *values):
        """Change something."""
        with self._lock:
            self._connection.execute(sql, values)

    # -- users ----------------------------------------------------------------------------------

    def ensure_admin(self, login, password, email):
        """Make the first user; what they have already is not touched."""
        if not self.all("SELECT id FROM user"):
            salt = secrets.token_hex(5)
            row = (login, email, encode_password(password, salt), salt)
            self.do("INSERT INTO user (login, email, password, salt, is_admin) VALUES (?, ?, ?, ?, 1)", *row)

    def set_password(self, number, password):
        """Return whether there is such a user, who is an admin."""
        found = self.all("SELECT salt FROM user WHERE id = ? AND is_admin = 1", number)
        for user in found:
            self.do("UPDATE user SET password = ? WHERE id = ?", encode_password(password, user["salt"]), number)
        return bool(found)

    def user(self, login, password):
        """Return the user whose password this is, or None."""
        for user in self.all("SELECT * FROM user WHERE login = ? OR email = ?", login, login):
            if secrets.compare_digest(user["password"], encode_password(password, user["salt"])):
                return user
        return None

    # -- dashboards -----------------------------------------------------------------------------

    def save_dashboard(self, data, folder="", provider="", external_id="", updated=0.0):
        """Keep a dashboard under its uid."""
        row = (data["uid"], data["title"], folder, json.dumps(data), provider, external_id, updated)
        self.do(f"INSERT OR REPLACE INTO {self.dashboards} VALUES (?, ?, ?, ?, ?, ?, ?)", *row)

    def find_dashboards(self, where="1", *values):
        """Return dashboards as rows."""
        return self.all(f"SELECT * FROM {self.dashboards} WHERE {where} ORDER BY title", *values)

    def delete_dashboard(self, uid):
        """Forget a dashboard."""
        self.do(f"DELETE FROM {self.dashboards} WHERE uid = ?", uid)
