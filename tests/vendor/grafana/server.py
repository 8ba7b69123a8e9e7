"""A substitute for Grafana: it checks provisioning files and answers the API calls that this project uses.

For rehearsals on a virtual Pi only. It refuses and serves what a real 9.3.2 refused and served; queries go through the
provisioned data source to the database. There is no screen, and alarms are checked but never evaluated.

    server.py --config=FILE --data=DIR --provisioning=DIR
"""

from __future__ import annotations

import base64
import configparser
import json
import os
import re
import signal
import sqlite3
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import queries
from database import Database, Json, new_uid
from provisioning import Provisioning, ProvisioningError, data_source, log
from settings import Settings

JSON_UTF8, HTML, TEXT = (
    "application/json; charset=UTF-8",
    "text/html; charset=UTF-8",
    "text/plain; charset=utf-8",
)
LOGO = "public/app/plugins/datasource/influxdb/img/influxdb_logo.svg"
PAGE = b"""<!DOCTYPE html><title>SUBSTITUTE for Grafana</title><h1>SUBSTITUTE for Grafana</h1>
<p>This rehearsal runs without the vendor's package: there is no screen here. Provisioning and queries are real.</p>"""
# What a viewer may not do, and the right that it takes.
NEEDED = """GET /api/users users:read
GET /api/v1/provisioning/ alert.provisioning:read
POST /api/dashboards/db any of dashboards:create, dashboards:write
DELETE /api/dashboards/uid/ dashboards:delete
POST /api/datasources datasources:create
PUT /api/datasources/uid/ datasources:write
DELETE /api/datasources/uid/ datasources:delete
POST /api/folders folders:create
POST /api/admin/provisioning/ provisioning:reload
PUT /api/admin/users/ users.password:write"""
META: Json = json.loads("""{"slug": "", "url": "", "expires": "0001-01-01T00:00:00Z", "created": "0001-01-01T00:00:00Z",
"updated": "0001-01-01T00:00:00Z", "updatedBy": "", "createdBy": "", "version": 0, "hasAcl": false, "isFolder": false,
"folderId": 0, "folderUid": "", "folderTitle": "General", "folderUrl": "", "provisioned": false,
"provisionedExternalId": "", "annotationsPermissions": null, "hasPublicDashboard": false,
"publicDashboardAccessToken": "", "publicDashboardUid": "", "publicDashboardEnabled": false}""")
CAN = ("canSave", "canEdit", "canAdmin", "canStar", "canDelete")


class Answered(Exception):  # noqa: N818 (no error: the answer is ready)
    """An answer, from wherever it became clear: status, JSON or bytes, content type."""

    def __init__(self, status: int, body: Any, kind: str = "application/json") -> None:
        super().__init__(status)
        self.status, self.kind = status, kind
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()


def failed(status: int, message: str, **more: Any) -> Answered:
    return Answered(status, {"message": message, **more, "traceID": ""})


def refused(message: str) -> Answered:
    return Answered(401, {"message": message, "traceID": ""}, JSON_UTF8)


def slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


class Handler(BaseHTTPRequestHandler):
    """The API; the class attributes are set at start."""

    settings: Settings
    database: Database
    provisioning: Provisioning
    lock = threading.Lock()
    protocol_version = "HTTP/1.1"
    wbufsize = 65536  # header and body in one segment
    timeout = 300

    def _answer(self) -> None:
        self.raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.url = urlsplit(self.path)
        try:
            self._route(f"{self.command} {unquote(self.url.path)}")
        except Answered as answer:
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.kind)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

    do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815 (http.server's names)

    def _role(self) -> str:
        """Give "Admin" or the viewer's role; answers by itself when the caller is nobody."""
        scheme, _, value = self.headers.get("Authorization", "").partition(" ")
        if scheme == "Basic":
            try:
                name, password = base64.b64decode(value, validate=True).decode().split(":", 1)
            except ValueError:
                raise refused("Invalid Basic Auth Header") from None
            if self.database.login(name, password):
                return "Admin"
            raise refused("invalid username or password")
        if scheme:
            raise refused("invalid API key")
        known = self.settings.get("auth.anonymous", "org_name", "Main Org.") == "Main Org."
        if self.settings.flag("auth.anonymous", "enabled") and known:
            return self.settings.get("auth.anonymous", "org_role", "Viewer")
        raise Answered(401, {"message": "Unauthorized"}, JSON_UTF8)

    def _json(self) -> Json:
        try:
            return dict(json.loads(self.raw))
        except (ValueError, TypeError):
            raise failed(400, "bad request data") from None

    def _route(self, call: str) -> None:
        path = call.partition(" ")[2]
        if call == "GET /api/health":
            hidden = self.settings.flag("auth.anonymous", "hide_version")
            version = {} if hidden else {"commit": "x", "version": "9.3.2"}
            raise Answered(200, {"database": "ok", **version}, JSON_UTF8)
        if call == "GET /metrics" and self.settings.flag("metrics", "enabled", "true"):
            raise Answered(200, b"# HELP grafana_info A substitute\n", TEXT.replace(";", "; version=0.0.4;"))
        if not path.startswith("/api/"):
            raise Answered(200 if path == "/" or path.startswith(("/d/", "/login")) else 404, PAGE, HTML)
        role = self._role()
        self._permit(call, role)
        self._sources(call)
        self._dashboards(call, role)
        self._others(call)
        raise Answered(404, {"message": "Not found"}, JSON_UTF8)

    def _permit(self, call: str, role: str) -> None:
        if call == "GET /api/user" and role != "Admin":
            raise Answered(401, {"message": "Unauthorized"}, JSON_UTF8)
        rights = [line.split(" ", 2) for line in NEEDED.splitlines()]
        needed = next((right for verb, start, right in rights if call.startswith(f"{verb} {start}")), "")
        needed = "" if call == "GET /api/v1/provisioning/alert-rules" else needed  # 9.3.2 does not have it
        if role == "Admin" or (role == "Viewer" and not needed):
            return
        what = f"You'll need additional permissions to perform this action. Permissions needed: {needed}"
        answer = {"accessErrorId": f"ACE{new_uid()}", "message": what, "title": "Access denied"}
        raise Answered(403, answer, JSON_UTF8)

    def _others(self, call: str) -> None:
        admin = self.database.run("SELECT * FROM user")[0]
        me = {"id": 1, "name": "", "login": admin["login"], "email": f"{admin['login']}@localhost"}
        me |= {"avatarUrl": "/public/img/user_profile.png", "authLabels": [], "isDisabled": False}
        if call == "GET /api/org":
            address = dict.fromkeys(("address1", "address2", "city", "zipCode", "state", "country"), "")
            raise Answered(200, {"id": 1, "name": "Main Org.", "address": address})
        if call == "GET /api/user":
            more = {"theme": "", "orgId": 1, "isGrafanaAdmin": True, "isExternal": False}
            raise Answered(200, {**me, **more, "updatedAt": admin["created"], "createdAt": admin["created"]})
        if call == "GET /api/users":
            seen = {"isAdmin": True, "lastSeenAt": admin["created"], "lastSeenAtAge": "< 1 minute"}
            raise Answered(200, [{**me, **seen}])
        if call == "PUT /api/admin/users/1/password":
            if len(word := self._json().get("password", "")) < 4:
                raise Answered(400, {"message": "New password is too short"})
            self.database.set_password(word)
            raise Answered(200, {"message": "User password updated"})
        if call == "POST /api/ds/query":
            self._query()
        if found := re.fullmatch(
            r"POST /api/admin/provisioning/(datasources|dashboards|alerting)/reload", call
        ):
            try:
                with self.lock:
                    self.provisioning.read_providers()
                    getattr(self.provisioning, found[1])()
            except (ProvisioningError, OSError) as error:
                log("error", str(error))
                raise failed(500, "Internal Server Error") from error
            raise Answered(200, {"message": f"{found[1].capitalize()} config reloaded"})

    def _find(self, uid: str | None, number: str | None = None) -> Json | None:
        sources = self.database.sources()
        return next((s for s in sources if (uid and s["uid"] == uid) or str(s["id"]) == number), None)

    def _sources(self, call: str) -> None:
        hidden = ("secrets", "basicAuthUser", "withCredentials")
        if call == "GET /api/datasources":
            of_type = {"typeName": "InfluxDB", "typeLogoUrl": LOGO}
            shown = [
                {k: v for k, v in s.items() if k not in hidden} | of_type for s in self.database.sources()
            ]
            raise Answered(200, shown)
        if call == "POST /api/datasources":
            raise self._add_source()
        if not (found := re.match(r"(\w+) /api/datasources/(proxy/)?(?:uid/([\w-]+)|(\d+))", call)):
            return
        rest = call[found.end() :]
        uid = (
            re.match(r"\w*", found[3])[0] if found[2] and found[3] else found[3]
        )  # a hyphen ends it in the proxy
        if (source := self._find(uid, found[4])) is None:
            health = rest == "/health"
            raise (
                failed(500, "Unable to load datasource metadata")
                if health
                else Answered(404, {"message": "Data source not found"})
            )
        if found[2]:
            self._proxy(source)
        if rest == "/health":
            try:
                raise Answered(200, {"message": queries.health(source), "status": "OK"})
            except ValueError as error:
                raise Answered(400, {"message": str(error), "status": "ERROR"}) from error
        if found[1] == "GET" and not rest:
            fields = dict.fromkeys(source.pop("secrets"), True)
            raise Answered(200, {**source, "typeLogoUrl": "", "version": 1, "secureJsonFields": fields})
        if verb := {"PUT": "update", "DELETE": "delete"}.get(found[1]):
            raise Answered(403, {"message": f"Cannot {verb} read-only data source"})

    def _add_source(self) -> Answered:
        """Take a data source made by hand."""
        source = data_source({"uid": new_uid(), "editable": True, **self._json()}, old=False)
        if self._find(source["uid"]):
            return failed(409, "data source with the same uid already exists")
        self.database.save_source(source)
        saved = self._find(source["uid"]) or {}
        fields = dict.fromkeys(saved.pop("secrets"), True)
        shown = {**saved, "typeLogoUrl": "", "version": 1, "secureJsonFields": fields}
        about = {"id": saved["id"], "name": saved["name"], "message": "Datasource added"}
        return Answered(200, {**about, "datasource": shown})

    def _proxy(self, source: Json) -> None:
        """Pass any path on to the database, with the data source's credential, as the real server does."""
        allowed = self.settings.get("security", "data_source_proxy_whitelist").split()
        if allowed and urlsplit(source["url"]).netloc not in allowed:
            raise failed(403, "Data proxy hostname and ip are not included in whitelist")
        gone = ("host", "connection", "content-length", "authorization", "cookie", "x-ds-authorization")
        headers = {key: value for key, value in self.headers.items() if key.lower() not in gone}
        headers |= queries.credentials(source)
        headers["Authorization"] = self.headers.get("X-DS-Authorization") or headers["Authorization"]
        target = re.sub(r"^/api/datasources/proxy/(uid/\w+|\d+)", "", self.path)
        try:
            answer = queries.send(source, self.command, target or "/", self.raw or None, headers)
        except OSError as error:
            log("error", f"Data proxy error: {error}")
            raise Answered(502, b"", "text/plain") from error
        if answer.status == 401:
            raise Answered(400, b"Authentication to data source failed", "text/plain")
        raise Answered(answer.status, answer.body, answer.headers.get("Content-Type", "text/plain"))

    def _query(self) -> None:
        body, results = self._json(), {}
        if not body.get("queries"):
            raise failed(400, "No queries found", messageId="query.noQueries", statusCode=400)
        start, end = (
            queries.moment(str(body.get("from", "now-1h"))),
            queries.moment(str(body.get("to", "now"))),
        )
        for query in body["queries"]:
            source = self._find((query.get("datasource") or {}).get("uid"), str(query.get("datasourceId")))
            if source is None:
                raise failed(404, "Data source not found")
            try:
                results[query.setdefault("refId", "A")] = queries.run(source, query, start, end)
            except queries.DownstreamError as error:
                if str(error) == "panic":
                    said = "Internal Server Error - Check the Grafana server logs for the detailed error message."
                    raise Answered(500, {"error": "Server Error", "message": said}, JSON_UTF8) from error
                said = "An error occurred within the plugin"
                raise failed(500, said, messageId="plugin.downstreamError", statusCode=500) from error
        bad = any("error" in result for result in results.values())
        raise Answered(400 if bad else 200, {"results": results})

    def _dashboards(self, call: str, role: str) -> None:
        rows = self.database.run("SELECT * FROM dashboard ORDER BY is_folder DESC, title")
        if call == "GET /api/folders":
            raise Answered(
                200, [{k: row[k] for k in ("id", "uid", "title")} for row in rows if row["is_folder"]]
            )
        if call == "GET /api/search":
            args = dict(parse_qsl(self.url.query))
            hits = [
                self._hit(row, rows) for row in rows if args.get("query", "").lower() in row["title"].lower()
            ]
            raise Answered(200, [hit for hit in hits if args.get("type", hit["type"]) == hit["type"]])
        if call == "GET /api/dashboards/home":
            path = self.settings.get("dashboards", "default_home_dashboard_path")
            try:
                dashboard = json.loads(Path(path).read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise failed(500, "Failed to load home dashboard") from error
            dashboard.pop("id", None)
            meta = META | dict.fromkeys(CAN, False) | {"canEdit": role == "Admin"}
            raise Answered(200, {"meta": meta, "dashboard": dashboard})
        if call == "POST /api/dashboards/db":
            given = self._json().get("dashboard") or {}
            if given.get("uid") in [row["uid"] for row in rows]:
                raise Answered(400, {"message": "Cannot save provisioned dashboard"})
            row = self.database.add_dashboard(given)
            about = {key: row[key] for key in ("id", "uid", "version")} | {"slug": slug(row["title"])}
            raise Answered(200, {**about, "status": "success", "url": f"/d/{row['uid']}/{about['slug']}"})
        if found := re.fullmatch(r"(GET|DELETE) /api/dashboards/uid/([^/]+)", call):
            row = next((row for row in rows if row["uid"] == found[2] and not row["is_folder"]), None)
            if row is None:
                raise failed(404, "Dashboard not found")
            if found[1] == "DELETE":
                if row["provider"]:
                    raise failed(400, "provisioned dashboard cannot be deleted")
                self.database.run("DELETE FROM dashboard WHERE id = ?", row["id"])
                about = {
                    "id": row["id"],
                    "message": f"Dashboard {row['title']} deleted",
                    "title": row["title"],
                }
                raise Answered(200, about)
            dashboard = json.loads(row["data"]) | {"version": row["version"]}
            raise Answered(200, {"meta": self._meta(row, rows, role == "Admin"), "dashboard": dashboard})

    def _meta(self, row: sqlite3.Row, rows: list[sqlite3.Row], admin: bool) -> Json:
        may, viewer = (
            {**dict.fromkeys(("canAdd", "canEdit", "canDelete"), answer)} for answer in (True, admin)
        )
        meta = META | dict.fromkeys(CAN, admin) | {k: row[k] for k in ("created", "updated", "version")}
        meta |= {"type": "db", "slug": slug(row["title"]), "url": f"/d/{row['uid']}/{slug(row['title'])}"}
        meta |= {"updatedBy": "Anonymous", "createdBy": "Anonymous", "provisioned": bool(row["provider"])}
        if row["provider"]:
            source = next(
                (p["path"] for p in self.provisioning.providers if p["name"] == row["provider"]), "/"
            )
            meta["provisionedExternalId"] = os.path.relpath(row["path"], source)
        meta["annotationsPermissions"] = {"dashboard": may, "organization": viewer}
        return meta | self._folder(row, rows)

    @staticmethod
    def _folder(row: sqlite3.Row, rows: list[sqlite3.Row]) -> Json:
        about = [{"folderId": f["id"], "folderUid": f["uid"], "folderTitle": f["title"]}
                 | {"folderUrl": f"/dashboards/f/{f['uid']}/{slug(f['title'])}"}
                 for f in rows if f["id"] == row["folder_id"]]  # fmt: skip
        return about[0] if about else {}

    def _hit(self, row: sqlite3.Row, rows: list[sqlite3.Row]) -> Json:
        kind, of = ("dash-folder", "dashboards/f") if row["is_folder"] else ("dash-db", "d")
        hit = {"id": row["id"], "uid": row["uid"], "title": row["title"], "uri": f"db/{slug(row['title'])}"}
        hit |= {
            "url": f"/{of}/{row['uid']}/{slug(row['title'])}",
            "slug": "",
            "type": kind,
            "isStarred": False,
        }
        return {
            **hit,
            "tags": json.loads(row["data"]).get("tags") or [],
            "sortMeta": 0,
            **self._folder(row, rows),
        }

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing of what went well."""


def poll(provisioning: Provisioning) -> None:
    """Apply dashboards now and again; a fault in a provider's file ends the server although its port is open."""
    try:
        with Handler.lock:
            provisioning.read_providers()
            provisioning.dashboards(first=True)
        while True:
            time.sleep(
                min((p.get("updateIntervalSeconds") or 10 for p in provisioning.providers), default=10)
            )
            with Handler.lock:
                provisioning.dashboards()
    except (ProvisioningError, OSError, ValueError) as error:
        log("error", str(error))
        os._exit(2 if isinstance(error, ValueError) else 1)  # a negative interval panics


def main() -> None:
    words = dict(word.lstrip("-").split("=", 1) for word in sys.argv[1:])
    os.umask(0o027)
    try:
        settings = Settings(Path(words["config"]))
        database = Database(Path(words["data"], "grafana.db"), settings.get("security", "secret_key"))
        password = settings.get("security", "admin_password") or "admin"
        database.ensure_admin(settings.get("security", "admin_user", "admin"), password)
        provisioning = Provisioning(Path(words["provisioning"]), database)
        provisioning.datasources()
        provisioning.alerting()
        Handler.settings, Handler.database, Handler.provisioning = settings, database, provisioning
        address = (settings.get("server", "http_addr"), int(settings.get("server", "http_port", "3000")))
        server = ThreadingHTTPServer(address, Handler)
    except (ProvisioningError, configparser.Error, sqlite3.Error, OSError, ValueError) as error:
        sys.exit(f"Failed to start grafana. error: {error}")
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    threading.Thread(target=poll, args=(provisioning,), daemon=True).start()
    server.serve_forever()


if __name__ == "__main__":
    main()
