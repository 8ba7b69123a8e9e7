#!/usr/bin/python3
"""A substitute for InfluxDB 2: Debian's InfluxDB 1.6 engine behind the v2 calls that this project uses.

For rehearsals on a virtual Pi only. Storage, line protocol parser and InfluxQL are the engine's; this file adds what
version 2 has around them: setup, organisation, buckets, tokens, v1-style users, with the answers of a real 2.9.1.
Any other call is answered "path not found". Rights are enforced by the engine: each token and user has an engine
user of its own with grants on its buckets only.

    adapter.py              run (configuration: INFLUXD_CONFIG_PATH, a file or a folder with config.toml)
    adapter.py wait-ready   ask /ready once a second without end, as the real package's start script does
"""

from __future__ import annotations

import base64
import fcntl
import functools
import gzip
import hashlib
import hmac
import http.client
import json
import os
import re
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

Json = dict[str, Any]
Args = dict[str, str]
RESOURCES = """authorizations buckets dashboards orgs sources tasks telegrafs users variables scrapers secrets
labels views documents notificationRules notificationEndpoints checks dbrp notebooks annotations remotes replications"""
DAY_S = 86400
SCRATCH = "_adapter_scratch"  # engine database in which doubtful lines are tried
NOBODY = "nobody"  # engine user without any right: only parses
# the engine's name, and how many digits behind the first are safe
PRECISIONS = {"ns": ("n", 18), "us": ("u", 15), "ms": ("ms", 12), "s": ("s", 9)}
# What version 2 runs, less what 1.6 would answer about all databases; SELECT ... INTO is not among it.
ALLOWED = re.compile(
    r"(SELECT|EXPLAIN|DELETE|DROP\s+(MEASUREMENT|SERIES)|"
    r"SHOW\s+(DATABASES|MEASUREMENTS?|FIELD|TAG|RETENTION|SERIES))\b",
    re.I,
)
HEALTH = {"name": "influxdb", "message": "ready for queries and writes", "status": "pass"}
JSON_TYPE = "application/json; charset=utf-8"
FORBIDDEN = re.compile(r"\b(INTO|EXACT)\b", re.I)
QUOTED = r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'"


class RefusalError(Exception):
    """An error answer: HTTP status, v2 error code, message."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.body = status, {"code": code, "message": message}


def load_config() -> dict[str, str]:
    """Read config.toml; unknown keys are ignored without a word, as the real server does."""
    path = Path(os.environ.get("INFLUXD_CONFIG_PATH") or ".")
    path = path / "config.toml" if path.is_dir() else path
    given = tomllib.loads(path.read_text()) if path.is_file() else {}
    root = Path("~/.influxdbv2").expanduser()
    defaults = {
        "bolt-path": f"{root}/influxd.bolt",
        "engine-path": f"{root}/engine",
        "http-bind-address": ":8086",
    }
    return defaults | {key: str(value) for key, value in given.items()}


class UnixConnection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(self.host)


# The engine's configuration, as its INFLUXDB_* variables. It cannot be kept from opening two random loopback ports
# besides the socket file that is used; the one that speaks HTTP asks for the same passwords.
SETTINGS = """BIND_ADDRESS=127.0.0.1:0 HTTP_BIND_ADDRESS=127.0.0.1:0 HTTP_UNIX_SOCKET_ENABLED=true HTTP_AUTH_ENABLED=true
HTTP_LOG_ENABLED=false HTTP_PPROF_ENABLED=false HTTP_MAX_BODY_SIZE=0 REPORTING_DISABLED=true MONITOR_STORE_ENABLED=false
SUBSCRIBER_ENABLED=false CONTINUOUS_QUERIES_ENABLED=false DATA_QUERY_LOG_ENABLED=false DATA_MAX_SERIES_PER_DATABASE=0
DATA_MAX_VALUES_PER_TAG=0 LOGGING_LEVEL=warn LOGGING_SUPPRESS_LOGO=true"""
STORAGE = """CACHE_MAX_MEMORY_SIZE CACHE_SNAPSHOT_WRITE_COLD_DURATION WAL_FSYNC_DELAY
MAX_CONCURRENT_COMPACTIONS"""


class Engine:
    """The 1.6 server as a child, spoken to over a socket file in a folder that only this user can enter."""

    def __init__(self, config: dict[str, str], secret: str) -> None:
        self._secret = secret.encode()
        folder = Path(os.environ.get("RUNTIME_DIRECTORY") or tempfile.mkdtemp(prefix="influxdb2-"))
        self._socket, root = folder / "engine.sock", config["engine-path"]
        self._socket.unlink(missing_ok=True)
        given = dict(word.split("=", 1) for word in SETTINGS.split())
        given |= {"META_DIR": f"{root}/meta", "DATA_DIR": f"{root}/data", "DATA_WAL_DIR": f"{root}/wal"}
        given["HTTP_BIND_SOCKET"] = str(self._socket)
        for name in STORAGE.split():
            if value := config.get(f"storage-{name.lower().replace('_', '-')}"):
                given[f"DATA_{name}"] = value
        binary = os.environ.get("INFLUXDB2_SUBSTITUTE_ENGINE", "/usr/lib/influxdb2-substitute/influxd")
        environment = {**os.environ, **{f"INFLUXDB_{name}": value for name, value in given.items()}}
        command = [binary, "run", "-config", "/dev/null"]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment)
        # it must not outlive an adapter that was killed, whose end of this pipe closes then
        last = ["sh", "-c", f"trap '' TERM; read never; kill -KILL {self.process.pid}"]
        self._watch = subprocess.Popen(last, stdin=subprocess.PIPE)

    def wait(self, seconds: float = 60) -> None:
        """Wait until it answers; make the users and the database that the adapter itself needs."""
        end = time.monotonic() + seconds
        while not self._socket.exists():
            if self.process.poll() is not None or time.monotonic() > end:
                sys.exit(f"the engine does not start (status {self.process.returncode}); its log is above")
            time.sleep(0.02)
        self.create_user("admin", " WITH ALL PRIVILEGES")
        self.create_user(NOBODY)
        self.run(f'CREATE DATABASE "{SCRATCH}" WITH DURATION 1h')

    def stop(self) -> None:
        self._watch.kill()
        self.process.terminate()
        self.process.wait(30)

    def _password(self, user: str) -> str:
        return hmac.new(self._secret, user.encode(), "sha256").hexdigest()

    def ask(self, path: str, args: Json, user: str = "admin", body: bytes | None = None) -> tuple[int, bytes]:
        """Send one request as an engine user; gives status and body, raises OSError when the engine is away."""
        token = base64.b64encode(f"{user}:{self._password(user)}".encode()).decode()
        connection = UnixConnection(str(self._socket), 0)
        try:
            headers = {"Authorization": f"Basic {token}", "Host": "engine"}
            connection.request("POST", f"{path}?{urlencode(args)}", body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except http.client.HTTPException as error:
            raise OSError(f"engine: {error!r}") from error
        finally:
            connection.close()

    def run(self, statement: str) -> None:
        """Run a statement as administrator; raises OSError when the engine refuses it."""
        status, answer = self.ask("/query", {"q": statement})
        if status != 200 or b'"error"' in answer:
            raise OSError(f"engine: {statement.split('PASSWORD')[0]}: {answer.decode()}")

    def create_user(self, name: str, rights: str = "") -> None:
        """Make an engine user (again is harmless)."""
        self.run(f"CREATE USER \"{name}\" WITH PASSWORD '{self._password(name)}'{rights}")


@functools.lru_cache(256)
def digest(salt: str, secret: str) -> str:
    return hashlib.pbkdf2_hmac("sha256", secret.encode(), salt.encode(), 20_000).hex()


def checked_password(word: str) -> str:
    if not 8 <= len(word) <= 72:
        raise RefusalError(400, "invalid", "passwords must be between 8 and 72 characters long")
    return word


class State:
    """What version 2 keeps in its bolt file, here one SQLite table of JSON things; secrets only as hashes.

    One program at a time has it open: raises OSError.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        path.chmod(0o600)
        self._one_at_a_time = path.open("rb")
        try:
            fcntl.flock(self._one_at_a_time, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OSError("unable to open boltdb file unable to open boltdb file timeout") from error
        self._db.execute("CREATE TABLE IF NOT EXISTS thing (id TEXT PRIMARY KEY, kind TEXT, body TEXT)")
        rows = self._db.execute("SELECT id, kind, body FROM thing ORDER BY rowid")
        self._things: dict[str, tuple[str, Json]] = {row[0]: (row[1], json.loads(row[2])) for row in rows}
        self.lock = threading.RLock()

    def all(self, kind: str) -> list[Json]:
        with self.lock:
            return [thing for its, thing in self._things.values() if its == kind]

    def find(self, kind: str, **values: str) -> Json | None:
        return next((t for t in self.all(kind) if all(t.get(k) == v for k, v in values.items())), None)

    def put(self, kind: str, thing: Json) -> Json:
        """Store a thing; a new one gets id and time."""
        with self.lock:
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            thing = {"id": secrets.token_hex(8), "createdAt": stamp, **thing, "updatedAt": stamp}
            sql = "INSERT INTO thing VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET body = excluded.body"
            self._db.execute(sql, (thing["id"], kind, json.dumps(thing)))
            self._things[thing["id"]] = (kind, thing)
            return thing

    def delete(self, thing: Json) -> None:
        with self.lock:
            self._db.execute("DELETE FROM thing WHERE id = ?", (thing["id"],))
            self._things.pop(thing["id"], None)


def operator_rights() -> list[Json]:
    return [{"action": a, "resource": {"type": k}} for k in RESOURCES.split() for a in ("read", "write")]


def may(auth: Json, action: str, kind: str, thing_id: str | None = None) -> bool:
    """Say whether an authorization holds a right; a permission without id covers all of its kind."""
    held = ((p["action"], p["resource"]) for p in auth["permissions"])
    return any((a, r["type"], r.get("id", thing_id)) == (action, kind, thing_id) for a, r in held)


_KEY = rb"(?:[\w.:/%()-]|\\[ ,=])+"
_SERIES = _KEY + rb"(?:," + _KEY + rb"=" + _KEY + rb")*"
_NUMBER = rb"-?\d{1,18}i|[-+]?\d{1,18}(?:\.\d{1,30})?(?:[eE][-+]?\d\d?)?"
_FIELD = _KEY + rb"=(?:" + _NUMBER + rb'|t|T|f|F|true|false|"(?:[^"\\\n]|\\["\\])*")'


@functools.cache
def certain(digits: int) -> re.Pattern[bytes]:
    """Match lines of which it is certain that the engine takes them."""
    tail = rb"(?: -?[0-8]?\d{1,%d})?" % digits
    return re.compile(_SERIES + rb" " + _FIELD + rb"(?:," + _FIELD + rb")*" + tail)


def doubtful(body: bytes, digits: int) -> list[bytes]:
    """Give the lines that are not `certain`; a line break inside a string belongs to its line."""
    good, found, held = certain(digits).fullmatch, [], b""
    for line in body.split(b"\n"):
        line = held + line
        held = b""
        if good(line) or not line.strip() or line.lstrip().startswith(b"#"):
            continue
        if (line.count(b'"') - line.count(b'\\"')) % 2:
            held = line + b"\n"
        else:
            found.append(line)
    return found + ([held[:-1]] if held else [])


class Service:
    """The answers: each method returns what is sent as JSON, or raises RefusalError."""

    def __init__(self, state: State, engine: Engine) -> None:
        self.state, self.engine = state, engine
        for bucket in state.all("bucket"):  # what the state says holds, also after a crash between the two
            engine.run(f'CREATE DATABASE "{bucket["name"]}"')
        self._grant(state.all("auth") + state.all("legacy"))

    def authorize(self, header: str, args: Args, v1: bool) -> Json:
        """Give the caller's authorization, or refuse with 401; the v1 calls also take user and password."""
        found, (scheme, _, value) = None, header.partition(" ")
        if scheme in ("Token", "Bearer"):
            found = self.state.find("auth", hash=digest("token", value.strip()))
        elif v1 and (scheme == "Basic" or "p" in args):
            user, _, word = base64.b64decode(value).decode().partition(":")
            user, word = (user, word) if scheme else (args.get("u", ""), args["p"])
            legacy = self.state.find("legacy", token=user) or {"id": ""}
            known = hmac.compare_digest(legacy.get("hash", ""), digest(legacy["id"], word))
            found = legacy if known else self.state.find("auth", hash=digest("token", word))
            if found is None:
                raise RefusalError(401, "unauthorized", "Unauthorized")
        if found is None:
            raise RefusalError(401, "unauthorized", "unauthorized access")
        return found

    def _demand(self, auth: Json, action: str, kind: str) -> None:
        if not may(auth, action, kind):
            raise RefusalError(401, "unauthorized", f"{action}:orgs/{self._org['id']}/{kind} is unauthorized")

    def _grant(self, auths: list[Json]) -> None:
        for auth in auths:
            if self._user(auth) != "admin":
                self.engine.create_user(auth["id"])
                for bucket in self.state.all("bucket"):
                    rights = [a for a in ("READ", "WRITE") if may(auth, a.lower(), "buckets", bucket["id"])]
                    if rights:
                        right = rights[0] if len(rights) == 1 else "ALL"
                        self.engine.run(f'GRANT {right} ON "{bucket["name"]}" TO "{auth["id"]}"')

    @staticmethod
    def _user(auth: Json) -> str:
        return "admin" if may(auth, "write", "orgs") else str(auth["id"])

    @property
    def _org(self) -> Json:
        return self.state.find("org") or {"id": "", "name": ""}

    def _show_org(self) -> Json:
        org, me = self._org, f"/api/v2/orgs/{self._org['id']}"
        links = {k: f"{me}/{k}" for k in ("labels", "logs", "members", "owners", "secrets")} | {"self": me}
        links |= {k: f"/api/v2/{k}?org={org['name']}" for k in ("buckets", "dashboards", "tasks")}
        return {**org, "links": links}

    def show_user(self) -> Json:
        user = self.state.find("user") or {"id": "", "name": ""}
        shown = {"id": user["id"], "name": user["name"], "status": "active"}
        return {**shown, "links": {"self": f"/api/v2/users/{user['id']}"}}

    def change_password(self, auth: Json, user_id: str, body: Json) -> None:
        self._demand(auth, "write", "users")
        if (user := self.state.find("user", id=user_id)) is None:
            raise RefusalError(404, "not found", "user not found")
        hashed = digest(user["salt"], checked_password(body.get("password", "")))
        self.state.put("user", {**user, "hash": hashed})

    def _show_bucket(self, bucket: Json) -> Json:
        me, org = f"/api/v2/buckets/{bucket['id']}", bucket["orgID"]
        links = {k: f"{me}/{k}" for k in ("labels", "members", "owners")} | {"self": me}
        links |= {"org": f"/api/v2/orgs/{org}", "write": f"/api/v2/write?org={org}&bucket={bucket['id']}"}
        return {**bucket, "links": links}

    def _show_auth(self, auth: Json, token: str, where: str) -> Json:
        user = self.state.find("user") or {}
        links = {"self": f"{where}/{auth['id']}", "user": f"/api/v2/users/{user['id']}"}
        shown = {**auth, "token": token, "userID": user["id"], "user": user["name"], "links": links}
        return {key: value for key, value in shown.items() if key != "hash"}

    def setup(self, body: Json) -> Json:
        if self.state.find("org"):
            raise RefusalError(422, "conflict", "onboarding has already been completed")
        if missing := [k for k in ("username", "org", "bucket") if not body.get(k)]:
            message = f"onboarding failed: missing required fields [{' '.join(missing)}]"
            raise RefusalError(422, "unprocessable entity", message)
        salt, org_id = secrets.token_hex(8), secrets.token_hex(8)
        hashed = digest(salt, checked_password(body.get("password", "")))
        user = self.state.put("user", {"name": body["username"], "salt": salt, "hash": hashed})
        self._keep_bucket({"name": "_monitoring", "type": "system", "orgID": org_id}, 7 * DAY_S)
        self._keep_bucket({"name": "_tasks", "type": "system", "orgID": org_id}, 3 * DAY_S)
        bucket = {"name": body["bucket"], "type": "user", "orgID": org_id}
        bucket = self._keep_bucket(bucket, int(body.get("retentionPeriodSeconds") or 0))
        token = body.get("token") or secrets.token_urlsafe(64)
        auth = {"hash": digest("token", token), "status": "active", "permissions": operator_rights()}
        auth |= {"description": f"{user['name']}'s Token", "orgID": org_id, "org": body["org"]}
        auth = self.state.put("auth", auth)
        # last: with it the setup counts as done
        self.state.put("org", {"id": org_id, "name": body["org"], "description": ""})
        things = {"user": self.show_user(), "bucket": self._show_bucket(bucket), "org": self._show_org()}
        return {**things, "auth": self._show_auth(auth, token, "/api/v2/authorizations")}

    def _keep_bucket(self, bucket: Json, seconds: int) -> Json:
        shard = 7 * DAY_S if not 0 < seconds <= 180 * DAY_S else DAY_S if seconds >= 2 * DAY_S else 3600
        name, old = bucket["name"], self.state.find("bucket", name=bucket["name"]) or {"labels": []}
        self.engine.run(f'CREATE DATABASE "{name}"')
        rule = f"DURATION {seconds}s SHARD DURATION {shard}s DEFAULT"
        self.engine.run(f'ALTER RETENTION POLICY "autogen" ON "{name}" {rule}')
        rules = [{"type": "expire", "everySeconds": seconds, "shardGroupDurationSeconds": shard}]
        bucket = self.state.put("bucket", {**old, **bucket, "retentionRules": rules})
        self._grant(self.state.all("auth") + self.state.all("legacy"))
        return bucket

    def orgs(self, auth: Json, args: Args) -> Json:
        if args.get("org", self._org["name"]) != self._org["name"]:
            raise RefusalError(404, "not found", f'organization name "{args["org"]}" not found')
        return {"links": {"self": "/api/v2/orgs"}, "orgs": [self._show_org()] * may(auth, "read", "orgs")}

    def buckets(self, auth: Json, args: Args) -> Json:
        wanted = {k: v for k, v in args.items() if k in ("name", "id", "orgID")}
        found = [b for b in self.state.all("bucket") if may(auth, "read", "buckets", b["id"])]
        found = [self._show_bucket(b) for b in found if wanted.items() <= b.items()]
        query = f"bucket={quote(args['name'])}&" if "name" in args else ""
        links = {"self": f"/api/v2/buckets?{query}descending=false&limit=20&offset=0"}
        return {"links": links, "buckets": found}

    def make_bucket(self, auth: Json, body: Json) -> Json:
        self._demand(auth, "write", "buckets")
        name, rules = body.get("name", ""), body.get("retentionRules") or [{"everySeconds": 0}]
        # the name becomes an identifier of the engine
        if not re.fullmatch(r'[^_"\\\x00-\x1f][^"\\\x00-\x1f]*', name):
            raise RefusalError(422, "unprocessable entity", f"bucket name {name} is invalid")
        if self.state.find("bucket", name=name):
            raise RefusalError(422, "conflict", f"bucket with name {name} already exists")
        bucket = {"name": name, "type": "user", "orgID": self._org["id"]}
        return self._show_bucket(self._keep_bucket(bucket, int(rules[0]["everySeconds"])))

    def change_bucket(self, auth: Json, bucket_id: str, body: Json) -> Json:
        bucket = self.state.find("bucket", id=bucket_id)
        if bucket is None or not may(auth, "write", "buckets", bucket_id):
            raise RefusalError(404, "not found", "bucket not found")
        for rule in body.get("retentionRules", []):  # an empty list changes nothing
            bucket = self._keep_bucket(bucket, int(rule["everySeconds"]))
        return self._show_bucket(bucket)

    def authorizations(self, auth: Json, kind: str, where: str, args: Args) -> Json:
        found = self.state.all(kind) if may(auth, "read", "authorizations") else []
        if kind == "legacy" and "token" in args:
            found = [a for a in found if a["token"] == args["token"]]
        shown = [self._show_auth(a, a.get("token", ""), where) for a in found]
        return {"links": {"self": where}, "authorizations": shown}

    def make_authorization(self, auth: Json, kind: str, where: str, body: Json) -> Json:
        """Make a token of the server's choice (auth), or a v1-style user of the caller's choice (legacy)."""
        self._demand(auth, "write", "authorizations")
        if body.get("orgID") != self._org["id"] or not body.get("permissions"):
            raise RefusalError(400, "invalid", "authorization must include orgID and permissions")
        for resource in (p["resource"] for p in body["permissions"]):
            if bucket := self.state.find("bucket", id=resource.get("id", "")):
                resource |= {"name": bucket["name"], "org": self._org["name"]}
        token = body.get("token", "") if kind == "legacy" else secrets.token_urlsafe(64)
        if self.state.find("legacy", token=token):
            raise RefusalError(422, "conflict", "token already exists")
        new = {"token": token} if kind == "legacy" else {"hash": digest("token", token)}
        new |= {"description": body.get("description", ""), "permissions": body["permissions"]}
        new |= {"status": "active", "orgID": self._org["id"], "org": self._org["name"]}
        self._grant([new := self.state.put(kind, new)])
        return self._show_auth(new, token, where)

    def change_authorization(self, auth: Json, kind: str, thing_id: str, body: Json | None) -> None:
        """Set a v1-style user's password, or delete (no body)."""
        found = self.state.find(kind, id=thing_id)
        if found is None or not may(auth, "write", "authorizations"):
            raise RefusalError(404, "not found", "authorization not found")
        if body is not None:
            hashed = digest(thing_id, checked_password(body.get("password", "")))
            self.state.put(kind, {**found, "hash": hashed})
        else:
            self.state.delete(found)
            self.engine.run(f'DROP USER "{thing_id}"')

    def write(self, auth: Json, args: Args, body: bytes, v1: bool) -> None:
        """Store line protocol: nothing of a batch with a malformed line, all but the bad points of a type conflict."""
        precision, digits = PRECISIONS.get(args.get("precision", "ns"), ("", 0))
        name, org = args.get("db" if v1 else "bucket", ""), self._org
        if not precision:
            raise RefusalError(
                400, "invalid", "invalid precision; valid precision units are ns, us, ms, and s"
            )
        if not v1 and not {"org", "orgID"} & set(args):
            raise RefusalError(400, "invalid", "Please provide either orgID or org")
        if not v1 and args.get("org", org["name"]) not in (org["name"], org["id"]):
            raise RefusalError(404, "not found", f'organization name "{args["org"]}" not found')
        bucket = self.state.find("bucket", name=name) or self.state.find("bucket", id=name)
        if bucket is None:
            raise RefusalError(404, "not found", f'bucket "{name}" not found')
        if not may(auth, "write", "buckets", bucket["id"]):
            raise RefusalError(403, "forbidden", "insufficient permissions for write")
        for line in doubtful(body, digits):
            _, answer = self.engine.ask("/write", {"db": SCRATCH, "precision": precision}, body=line)
            if b"unable to parse" in answer:
                raise RefusalError(400, "invalid", json.loads(answer)["error"])
        if body.strip():
            args = {"db": bucket["name"], "precision": precision}
            status, answer = self.engine.ask("/write", args, self._user(auth), body)
            message = json.loads(answer)["error"] if status != 204 else ""
            if "unable to parse" in message:  # `certain` was too sure
                raise RefusalError(400, "invalid", message)
            if "partial write" in message:
                raise RefusalError(
                    422, "unprocessable entity", f"failure writing points to database: {message}"
                )
            if message:
                raise RefusalError(
                    500, "internal error", f"unexpected error writing points to database: {message}"
                )

    def query(self, auth: Json, args: Args) -> bytes:
        """Run InfluxQL, statement by statement, with the caller's rights."""
        passed = {k: v for k, v in args.items() if k in ("db", "rp", "epoch", "params")}
        statements = [s.strip() for s in re.findall(rf"(?:{QUOTED}|[^;])+", args.get("q", "")) if s.strip()]
        results = [self._statement(auth, passed, statement) for statement in statements]
        shown = [
            b'{"statement_id":%d%s}' % (i, result) for i, result in enumerate(results) if result is not None
        ]
        return b'{"results":[' + b",".join(shown) + b"]}\n" if shown else b"{}\n"

    def _statement(self, auth: Json, args: Args, statement: str) -> bytes | None:
        allowed = ALLOWED.match(statement) and not FORBIDDEN.search(re.sub(QUOTED, "", statement))
        user = self._user(auth) if allowed else NOBODY
        status, answer = self.engine.ask("/query", {**args, "q": statement}, user)
        error = json.loads(answer).get("error", "")
        if status == 403 or (status == 200 and not allowed):
            hidden = re.search(r"requires READ on (.*)$", error) if allowed else None
            what = f"database not found: {hidden[1]}" if hidden else "insufficient permissions"
            return b',"error":' + json.dumps(what).encode()
        if status != 200:
            raise RefusalError(
                400, "invalid", error.replace("error parsing query", "failed to parse query", 1)
            )
        words = statement.upper().split()
        if words[0] == "DELETE":
            return None
        if words[:2] == ["SHOW", "DATABASES"]:
            shown = json.loads(answer)
            names = shown["results"][0]["series"][0].get("values", [])
            shown["results"][0]["series"][0]["values"] = sorted(n for n in names if n != [SCRATCH])
            answer = json.dumps(shown, separators=(",", ":")).encode()
        return answer.strip()[len(b'{"results":[{"statement_id":0') : -len(b"}]}")]


class Handler(BaseHTTPRequestHandler):
    """Routes, and how answers are spelt; `service` and `config` are set at start."""

    service: Service
    config: dict[str, str]
    started = time.time()
    protocol_version = "HTTP/1.1"
    wbufsize = 65536  # header and body in one segment
    timeout = 300

    def _body(self) -> bytes:
        body = self.rfile.read(length := int(self.headers.get("Content-Length") or 0))
        if len(body) < length:  # its sender died: what looks like a whole line may be half of one
            raise RefusalError(400, "invalid", "unexpected EOF")
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _answer(self) -> None:
        url = urlsplit(self.path)
        try:
            body = self._body()
            self._send(*self._route(url.path, dict(parse_qsl(url.query)), body))
        except RefusalError as refusal:
            self._send(refusal.status, refusal.body)
        except (EOFError, zlib.error, gzip.BadGzipFile, ValueError, KeyError, AttributeError) as error:
            self._send(400, {"code": "invalid", "message": f"the request cannot be read: {error!r}"})
        except OSError as error:
            self.log_error("%s", error)
            self._send(500, {"code": "internal error", "message": "the engine does not answer"})

    do_GET = do_POST = do_PATCH = do_DELETE = _answer  # noqa: N815 (http.server's names)

    def _route(self, path: str, args: Args, raw: bytes) -> tuple[Any, ...]:
        """Give status, body (JSON or bytes) and, where it is not the usual one, content type."""
        service, call, given = self.service, f"{self.command} {path}", self.headers.get("Authorization", "")
        if call == "GET /health":
            return 200, {**HEALTH, "checks": [], "version": "v2.9.1", "commit": "none"}
        if call == "GET /ready":
            started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.started))
            return 200, {"status": "ready", "started": started, "up": f"{time.time() - self.started:.3f}s"}
        if path == "/ping":
            return (204,)
        if call == "GET /metrics" and self.config.get("metrics-disabled", "").lower() != "true":
            return 200, b"# HELP influxdb_info A substitute\n", "text/plain; version=0.0.4"
        if call == "GET /api/v2/setup":
            return 200, {"allowed": service.state.find("org") is None}
        if call == "POST /api/v2/setup":
            with service.state.lock:
                return 201, service.setup(json.loads(raw))
        if path == "/query":
            if self.headers.get("Content-Type", "").startswith("application/x-www-form-urlencoded"):
                args |= dict(parse_qsl(raw.decode()))
            return 200, service.query(service.authorize(given, args, v1=True), args), "application/json"
        if not path.startswith(("/api/v2/", "/private/", "/write")):
            return 404, b"404 page not found\n", "text/plain; charset=utf-8"
        auth = service.authorize(given, args, v1=path == "/write")
        if call in ("POST /write", "POST /api/v2/write"):
            service.write(auth, args, raw, v1=path == "/write")
            return (204,)
        return self._things(call, auth, args, json.loads(raw or b"{}"))

    def _things(self, call: str, auth: Json, args: Args, body: Json) -> tuple[Any, ...]:
        service = self.service
        lists = {"GET /api/v2/orgs": service.orgs, "GET /api/v2/buckets": service.buckets}
        if call in lists:
            return 200, lists[call](auth, args)
        if call == "GET /api/v2/me":
            return 200, service.show_user()
        if found := re.fullmatch(r"POST /api/v2/users/(\w+)/password", call):
            service.change_password(auth, found[1], body)
            return (204,)
        if call == "POST /api/v2/buckets":
            return 201, service.make_bucket(auth, body)
        if found := re.fullmatch(r"PATCH /api/v2/buckets/(\w+)", call):
            return 200, service.change_bucket(auth, found[1], body)
        for kind, where in (("auth", "/api/v2/authorizations"), ("legacy", "/private/legacy/authorizations")):
            if call == f"GET {where}":
                return 200, service.authorizations(auth, kind, where, args)
            if call == f"POST {where}":
                return 201, service.make_authorization(auth, kind, where, body)
            if found := re.fullmatch(rf"DELETE {where}/(\w+)|POST {where}/(\w+)/password", call):
                service.change_authorization(auth, kind, found[1] or found[2], None if found[1] else body)
                return (204,)
        raise RefusalError(404, "not found", "path not found")

    def _send(self, status: int, body: Json | bytes = b"", kind: str = JSON_TYPE) -> None:
        headers = {"X-Influxdb-Build": "OSS", "X-Influxdb-Version": "v2.9.1+substitute"}
        if isinstance(body, dict):
            headers |= {"X-Platform-Error-Code": body["code"]} if status >= 400 else {}
            body = json.dumps(body, ensure_ascii=False).encode()
        if status != 204:
            headers |= {"Content-Type": kind, "Content-Length": str(len(body))}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing of what went well."""


def wait_ready(host: str, port: int) -> None:
    while True:
        connection = http.client.HTTPConnection(host or "127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/ready")
            if connection.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException):
            time.sleep(1)


def main() -> None:
    config = load_config()
    host, _, port = config["http-bind-address"].rpartition(":")
    if sys.argv[1:] == ["wait-ready"]:
        return wait_ready(host.strip("[]"), int(port))
    try:
        server = ThreadingHTTPServer((host.strip("[]"), int(port)), Handler)
    except OSError as error:
        sys.exit(f"cannot listen on {config['http-bind-address']}: {error}")
    state = State(Path(config["bolt-path"]))
    secret = state.find("secret") or state.put("secret", {"value": secrets.token_hex(32)})
    engine = Engine(config, secret["value"])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        engine.wait()
        Handler.service, Handler.config = Service(state, engine), config
        threading.Thread(target=server.serve_forever, daemon=True).start()
        sys.exit(f"the engine ended with status {engine.process.wait()}")
    finally:
        engine.stop()


if __name__ == "__main__":
    main()
