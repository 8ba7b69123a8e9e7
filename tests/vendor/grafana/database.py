"""grafana.db: the admin, wrong logins, data sources, folders and dashboards; read anew at each request."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import sqlite3
import time
from pathlib import Path
from typing import Any

Json = dict[str, Any]
LOCK_AFTER, LOCK_S = 5, 300  # wrong logins of one name, and for how long they count
TABLES = """
CREATE TABLE IF NOT EXISTS user (id INTEGER PRIMARY KEY, login, password, salt, created);
CREATE TABLE IF NOT EXISTS login_attempt (username, created REAL);
CREATE TABLE IF NOT EXISTS data_source (id INTEGER PRIMARY KEY AUTOINCREMENT, name UNIQUE, uid UNIQUE, body, sealed);
CREATE TABLE IF NOT EXISTS dashboard (id INTEGER PRIMARY KEY AUTOINCREMENT, uid, title, is_folder, folder_id DEFAULT 0,
    version DEFAULT 1, created, updated, data DEFAULT '{}', provider, path, checksum);
"""


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def new_uid() -> str:
    return secrets.token_hex(5)


def _hash(password: str, salt: str) -> str:
    return hashlib.pbkdf2_hmac("sha256", password.encode(), salt.encode(), 10_000, 50).hex()


class Database:
    """The file and what is asked of it; raises sqlite3.Error."""

    def __init__(self, path: Path, secret_key: str) -> None:
        self._path, self._key = path, secret_key.encode()
        for statement in TABLES.split(";"):
            self.run(statement)

    def run(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        """Run one statement, committed; gives its rows."""
        connection = sqlite3.connect(self._path, timeout=10)
        connection.row_factory = sqlite3.Row
        with connection:
            rows = connection.execute(sql, values).fetchall()
        connection.close()
        return rows

    def ensure_admin(self, login: str, password: str) -> None:
        """Make the admin at the first start; later the configured password does not count."""
        if not self.run("SELECT 1 FROM user"):
            self.run("INSERT INTO user (id, login, created) VALUES (1, ?, ?)", login, now())
            self.set_password(password)

    def set_password(self, password: str) -> None:
        salt = secrets.token_hex(5)
        self.run("UPDATE user SET password = ?, salt = ? WHERE id = 1", _hash(password, salt), salt)

    def login(self, name: str, password: str) -> bool:
        """Try a login; after five wrong ones the right one is refused too, for five minutes."""
        recent = "SELECT 1 FROM login_attempt WHERE username = ? AND created > ?"
        if len(self.run(recent, name, time.time() - LOCK_S)) >= LOCK_AFTER:
            return False
        users = self.run("SELECT * FROM user WHERE login = ?", name)
        if users and hmac.compare_digest(users[0]["password"], _hash(password, users[0]["salt"])):
            return True
        self.run("INSERT INTO login_attempt VALUES (?, ?)", name, time.time())
        return False

    def _cross(self, data: bytes) -> bytes:
        """Cross with a key stream of secret_key: forth and back are the same."""
        blocks = [hmac.digest(self._key, str(i).encode(), "sha256") for i in range(len(data) // 32 + 1)]
        return bytes(a ^ b for a, b in zip(data, b"".join(blocks), strict=False))

    def sources(self) -> list[Json]:
        """Give the data sources, each with its `secrets`."""
        found = []
        for row in self.run("SELECT * FROM data_source ORDER BY name COLLATE NOCASE"):
            try:
                opened = json.loads(self._cross(base64.b64decode(row["sealed"])))
            except ValueError:  # another secret_key: the real server notices as little before the first use
                opened = {}
            found.append({"id": row["id"], **json.loads(row["body"]), "secrets": opened})
        return found

    def save_source(self, source: Json) -> None:
        """Insert, or update by name."""
        body = {key: value for key, value in source.items() if key != "secrets"}
        sealed = base64.b64encode(self._cross(json.dumps(source["secrets"]).encode())).decode()
        sql = """INSERT INTO data_source (name, uid, body, sealed) VALUES (?, ?, ?, ?) ON CONFLICT (name)
            DO UPDATE SET uid = excluded.uid, body = excluded.body, sealed = excluded.sealed"""
        self.run(sql, source["name"], source["uid"], json.dumps(body), sealed)

    def add_dashboard(self, given: Json) -> sqlite3.Row:
        """Keep a dashboard that was made by hand; gives its row."""
        sql = "INSERT INTO dashboard (is_folder, created, updated) VALUES (0, ?, ?) RETURNING id"
        number, uid = self.run(sql, now(), now())[0]["id"], given.get("uid") or new_uid()
        sql = "UPDATE dashboard SET uid = ?, title = ?, data = ? WHERE id = ? RETURNING *"
        return self.run(sql, uid, given["title"], json.dumps({**given, "id": number, "uid": uid}), number)[0]

    def folder(self, title: str, uid: str | None = None) -> int:
        """Give the id of a folder, made when it is not there; 0 is the general one."""
        if title and not (find := self.run("SELECT id FROM dashboard WHERE is_folder AND title = ?", title)):
            sql = "INSERT INTO dashboard (uid, title, is_folder, created, updated) VALUES (?, ?, 1, ?, ?) RETURNING id"
            find = self.run(sql, uid or new_uid(), title, now(), now())
        return int(find[0]["id"]) if title else 0
