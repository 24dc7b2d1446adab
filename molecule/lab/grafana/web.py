"""STAND-IN for Grafana: the part of its HTTP API that tests and health checks ask."""

import base64
import http.server
import json
import secrets
import sqlite3
import time
import urllib.parse

PAGE = """<!DOCTYPE html>
<html><head><title>Grafana (stand-in)</title></head>
<body><h1>STAND-IN for Grafana {version}</h1>
<p>There is nothing to look at. It is a part of gpufleet.monitoring's lab, and not Grafana.</p></body></html>
"""
STARTED = time.time()


def server(settings, release, database, plugins, log):
    """Return the web server, bound to its address. Raises OSError."""
    sub_path = urllib.parse.urlsplit(settings.get("server", "root_url")).path.rstrip("/")
    sessions = set()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        server_version = "Grafana-stand-in"

        def do_GET(self):
            """Pages, and the API as far as it reads."""
            path, _, query = self.path.partition("?")
            if settings.flag("server", "serve_from_sub_path") and sub_path:
                if not path.startswith(sub_path + "/"):
                    return self.redirect(settings.get("server", "root_url").rstrip("/") + path)
                path = path[len(sub_path) :]
            if path == "/api/health":
                return self.health()
            if path == "/metrics" and settings.flag("metrics", "enabled"):
                return self.answer(200, self.metrics(), "text/plain; version=0.0.4; charset=utf-8")
            if path == "/login":
                return self.answer(200, PAGE.format(version=release["version"]), "text/html; charset=UTF-8")
            if path in ("", "/") or path.startswith("/d/"):
                if not self.user():
                    return self.redirect(f"{sub_path}/login")
                return self.answer(200, PAGE.format(version=release["version"]), "text/html; charset=UTF-8")
            if not path.startswith("/api/"):
                return self.json(404, {"message": "Not found"})
            if not self.user():
                return self.json(401, {"message": "Unauthorized"})
            return self.api(path, urllib.parse.parse_qs(query))

        def do_POST(self):
            """Logging in, and saving a dashboard."""
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "{}")
            if self.path == "/login":
                if not database.user(body.get("user", ""), body.get("password", "")):
                    return self.json(401, {"message": "Invalid username or password"})
                sessions.add(session := secrets.token_hex(16))
                cookie = f"grafana_session={session}; Path={sub_path or '/'}; HttpOnly; SameSite=Lax"
                secure = "; Secure" if settings.flag("security", "cookie_secure") else ""
                return self.json(200, {"message": "Logged in"}, {"Set-Cookie": cookie + secure})
            if not self.user():
                return self.json(401, {"message": "Unauthorized"})
            if self.path != "/api/dashboards/db":
                return self.json(404, {"message": "Not found"})
            data = body["dashboard"]
            if database.find_dashboards("uid = ? AND provider != ''", data.get("uid")):
                return self.json(400, {"message": "Cannot save provisioned dashboard"})
            database.save_dashboard({**data, "uid": data.get("uid") or secrets.token_hex(7)})
            return self.json(200, {"status": "success", "uid": data.get("uid")})

        def do_PUT(self):
            """The user changes their password."""
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            user = self.user()
            if not user or self.path != "/api/user/password" or not database.user(user["login"], body["oldPassword"]):
                return self.json(401, {"message": "Invalid old password"})
            database.set_password(user["id"], body["newPassword"])
            return self.json(200, {"message": "User password changed"})

        def api(self, path, query):
            dashboards = database.find_dashboards
            if path == "/api/org":
                return self.json(200, {"id": 1, "name": "Main Org."})
            if path == "/api/user":
                return self.json(200, {"login": self.user()["login"], "isGrafanaAdmin": True})
            if path == "/api/datasources":
                return self.json(200, [self.datasource(row) for row in database.all("SELECT * FROM data_source")])
            if path.startswith("/api/datasources/uid/"):
                uid, _, what = path.removeprefix("/api/datasources/uid/").partition("/")
                found = database.all("SELECT * FROM data_source WHERE uid = ?", uid)
                if found and what == "health":
                    return self.datasource_health(found[0])
                if found and not what:
                    return self.json(200, self.datasource(found[0]))
                return self.json(404, {"message": "Data source not found"})
            if path == "/api/search":
                found = dashboards("title LIKE ?", f"%{query.get('query', [''])[0]}%")
                return self.json(200, [
                    {"uid": row["uid"], "title": row["title"], "type": "dash-db", "folderTitle": row["folder"]}
                    for row in found
                ])  # fmt: skip
            if path.startswith("/api/dashboards/uid/"):
                found = dashboards("uid = ?", path.rpartition("/")[2])
                if not found:
                    return self.json(404, {"message": "Dashboard not found"})
                meta = {"folderTitle": found[0]["folder"], "provisioned": bool(found[0]["provider"])}
                return self.json(200, {"meta": meta, "dashboard": json.loads(found[0]["data"])})
            if path == "/api/plugins":
                return self.json(200, [
                    {"id": name, "type": plugin["type"], "info": plugin["info"]} for name, plugin in plugins.items()
                ])  # fmt: skip
            return self.json(404, {"message": "Not found"})

        @staticmethod
        def datasource(row):
            """What is secret is only said to be there."""
            fields = dict.fromkeys(json.loads(row["secrets"]), True)
            flags = {"isDefault": bool(row["is_default"]), "readOnly": bool(row["read_only"])}
            words = {name: row[name] for name in ("uid", "name", "type", "url")}
            return {**words, **flags, "secureJsonFields": fields}

        def datasource_health(self, row):
            """What the data source's plugin says of it."""
            plugin = plugins.get(row["type"])
            if not plugin:
                log("context", "error", "Could not find plugin definition for data source", datasource_type=row["type"])
                return self.json(500, {"message": "Unable to find datasource plugin"})
            if not plugin["backend"]:
                return self.json(404, {"message": "Not found"})
            try:
                well, message = plugin["backend"].health(row["url"])
            except OSError as error:
                log("context", "error", "Plugin unavailable", error=error)
                return self.json(500, {"message": "An error occurred within the plugin"})
            status = {"status": "OK" if well else "ERROR", "message": message}
            return self.json(200 if well else 400, status)

        def health(self):
            try:
                database.all("SELECT 1")
                status, state = 200, "ok"
            except sqlite3.Error:
                status, state = 503, "failing"
            return self.json(status, {"database": state, "version": release["version"], "commit": "stand-in"})

        def metrics(self):
            labels = f'branch="stand-in",edition="oss",revision="stand-in",version="{release["version"]}"'
            values = {
                f"grafana_build_info{{{labels}}}": 1,
                "grafana_stat_totals_dashboard": len(database.find_dashboards()),
                "grafana_stat_totals_datasource": len(database.all("SELECT uid FROM data_source")),
                "grafana_stat_total_users": len(database.all("SELECT id FROM user")),
                "process_start_time_seconds": STARTED,
            }
            lines = [f"# TYPE {name.partition('{')[0]} gauge\n{name} {value}\n" for name, value in values.items()]
            return "".join(lines)

        def user(self):
            cookies = self.headers.get("Cookie", "")
            if any(f"grafana_session={session}" in cookies for session in sessions):
                return database.all("SELECT * FROM user WHERE id = 1")[0]
            kind, _, value = self.headers.get("Authorization", "").partition(" ")
            if kind != "Basic":
                return None
            login, _, password = base64.b64decode(value).decode().partition(":")
            return database.user(login, password)

        def redirect(self, location):
            return self.answer(302, "", "text/html", {"Location": location})

        def json(self, status, content, headers=None):
            return self.answer(status, json.dumps(content, indent=2), "application/json; charset=UTF-8", headers)

        def answer(self, status, text, kind, headers=None):
            content = text.encode()
            self.send_response(status)
            for name, value in {"Content-Type": kind, "Content-Length": len(content), **(headers or {})}.items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_words):
            """Requests are not logged (router_logging)."""

    http.server.ThreadingHTTPServer.daemon_threads = True
    address = settings.get("server", "http_addr")
    return http.server.ThreadingHTTPServer((address, int(settings.get("server", "http_port"))), Handler)
