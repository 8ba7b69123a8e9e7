"""Provisioning files: checked, refused and taken as a real 9.3.2 did. Alarms are only checked."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml
from database import Database, Json, new_uid, now
from settings import expand

_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}
RECEIVERS = {"webhook": "url", "email": "addresses", "telegram": "bottoken", "slack": "recipient"}


class ProvisioningError(Exception):
    """A fault that keeps the server from starting."""


def log(level: str, message: str) -> None:
    print(f"logger=provisioning level={level} msg={json.dumps(message)}", file=sys.stderr, flush=True)


def need(fine: Any, message: str) -> None:
    if not fine:
        raise ProvisioningError(message)


def duration(text: Any, where: str = "") -> float:
    """Read a duration in seconds; raises ProvisioningError."""
    need(text, f"{where}empty duration string")
    parts = re.findall(r"(\d+)(ms|s|m|h|d|w|y)", str(text))
    need("".join(map("".join, parts)) == str(text), f'{where}not a valid duration string: "{text}"')
    return sum(int(number) * _SECONDS[unit] for number, unit in parts)


def read(folder: Path, endings: tuple[str, ...], fault: str) -> list[tuple[str, Json]]:
    """Read a folder's YAML files in the order of their names; one that is missing is only logged."""
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix in endings)
    except OSError as error:
        log("error", f"can't read provisioning files from directory: {error}")
        return []
    try:
        return [(path.name, yaml.safe_load(path.read_text(encoding="utf-8")) or {}) for path in paths]
    except (yaml.YAMLError, OSError) as error:
        raise ProvisioningError(f"{fault} {error}") from error


class Provisioning:
    """The folder with datasources/, alerting/ and dashboards/."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.folder, self.database, self.providers = folder, database, list[Json]()

    def datasources(self) -> None:
        """Apply the data sources; raises ProvisioningError."""
        where = "Datasource provisioning error: "
        files = read(self.folder / "datasources", (".yaml", ".yml"), f"{where}could not parse file")
        files = [(name, expand(content)) for name, content in files]
        defaults = [s for _, content in files for s in content.get("datasources") or [] if s.get("isDefault")]
        only = (
            "datasource.yaml config is invalid. Only one datasource per organization can be marked as default"
        )
        need(len(defaults) < 2, where + only)
        for _, content in files:
            for source in content.get("deleteDatasources") or []:
                self.database.run("DELETE FROM data_source WHERE name = ?", source["name"])
            for given in content.get("datasources") or []:
                name = given.get("name")
                unnamed = "unique identifier and org id are needed to be able to get or delete a datasource"
                need(name, where + unnamed)
                unknown = f'failed to provision "{name}" data source: organization not found'
                need(given.get("orgId", 1) in (0, 1), where + unknown)
                source = data_source(given, old=not content.get("apiVersion"))
                others = [kept["uid"] for kept in self.database.sources() if kept["name"] != name]
                need(source["uid"] not in others, f"{where}data source with the same uid already exists")
                self.database.save_source(source)

    def alerting(self) -> None:
        """Check the alarms and make their folders; raises ProvisioningError."""
        files = read(self.folder / "alerting", (".yaml", ".yml", ".json"), "failure to parse file")
        points = {"grafana-default-email"}
        for name, content in files:
            where = f"failure to map file {name}: failure parsing "
            for group in content.get("groups") or []:
                check_group(group, f"{where}rules: ")
            for point in expand(content.get("contactPoints") or []):
                check_point(point, f"{where}contact points: {point['name']}: ")
                points.add(point["name"])
            for policy in content.get("policies") or []:
                check_policy(policy, f"{where}policies: ")
        titles: dict[tuple[str, str], str] = {}
        for _, group in [(name, group) for name, content in files for group in content.get("groups") or []]:
            self.database.folder(group["folder"])
            check_saved(group, titles)
        for name, policy in [
            (name, policy) for name, content in files for policy in content.get("policies") or []
        ]:
            receiver, where = (
                policy.get("receiver"),
                f"notification policies: {name}: invalid object specification: ",
            )
            need(receiver in points, f"{where}receiver '{receiver}' does not exist")

    def read_providers(self) -> None:
        """Read the dashboard providers, and delete what those that are gone had brought; raises ProvisioningError."""
        start = "Failed to provision dashboard: Failed to create provisioner: Failed to"
        files = read(self.folder / "dashboards", (".yaml", ".yml"), f"{start} read dashboards config:")
        providers = [provider for _, content in files for provider in expand(content.get("providers") or [])]
        for provider in providers:
            kind, path = provider.get("type"), (provider.get("options") or {}).get("path")
            need(kind == "file", f"{start} initialize file readers: type {kind} is not supported")
            reader = (
                f"initialize file readers: failed to create file reader for config {provider.get('name')}"
            )
            need(
                isinstance(path, str),
                f"{start} {reader}: failed to load dashboards, path param is not a string",
            )
            provider |= {"path": Path(path), "writes": True}
        for row in self.database.run("SELECT id, provider FROM dashboard WHERE NOT is_folder"):
            if row["provider"] not in [provider["name"] for provider in providers]:
                self.database.run("DELETE FROM dashboard WHERE id = ?", row["id"])
        self.providers = providers

    def dashboards(self, first: bool = False) -> None:
        """Apply the files of all providers; the `first` time those behind one without its folder are left out."""
        for provider in self.providers:
            if provider["path"].is_dir():
                self._provider(provider)
            else:
                log("warn", f"Failed to provision config {provider['name']}: no directory {provider['path']}")
                if first:
                    return

    def _provider(self, provider: Json) -> None:
        folder = self.database.folder(provider.get("folder") or "", provider.get("folderUid"))
        paths, seen = sorted(path for path in provider["path"].rglob("*.json")), list[tuple[str, str]]()
        for path in paths:
            try:
                text = path.read_text(encoding="utf-8")
                dashboard = json.loads(text)
                need(dashboard.get("title"), "Dashboard title cannot be empty")
                seen += [(kind, dashboard[kind]) for kind in ("uid", "title") if dashboard.get(kind)]
                if provider["writes"]:
                    self._save(provider, folder, path, text, dashboard)
            except (OSError, ValueError, AttributeError, ProvisioningError) as error:
                log("error", f"failed to load or save dashboard {path}: {error}")
        provider["writes"] = len(seen) == len(set(seen))
        if not provider["writes"]:
            log(
                "warn", f"provider {provider['name']} has no database write permissions because of duplicates"
            )
        for row in self.database.run("SELECT id, path FROM dashboard WHERE provider = ?", provider["name"]):
            if row["path"] not in map(str, paths) and not provider.get("disableDeletion"):
                self.database.run("DELETE FROM dashboard WHERE id = ?", row["id"])

    def _save(self, provider: Json, folder: int, path: Path, text: str, dashboard: Json) -> None:
        title, uid, run = dashboard["title"], dashboard.get("uid") or "", self.database.run
        need(len(uid) <= 40, "uid too long, max 40 characters")
        need(re.fullmatch(r"[A-Za-z0-9_-]*", uid), "uid contains illegal characters")
        as_folder = folder and title.lower() == provider["folder"].lower()
        need(not as_folder, "Dashboard name cannot be the same as folder")
        mine, checksum = (provider["name"], str(path)), hashlib.sha256(text.encode()).hexdigest()
        kept = run("SELECT * FROM dashboard WHERE provider = ? AND path = ?", *mine)
        if kept and kept[0]["checksum"] == checksum:
            return
        kept = kept or run("SELECT * FROM dashboard WHERE uid = ? AND uid != ''", uid)
        same = "SELECT 1 FROM dashboard WHERE title = ? AND folder_id = ? AND NOT is_folder AND id != ?"
        taken = run(same, title, folder, kept[0]["id"] if kept else 0)
        need(not taken, "a dashboard of that title is in the folder already")
        if not kept:
            kept = run(
                "INSERT INTO dashboard (created, version, is_folder) VALUES (?, 0, 0) RETURNING *", now()
            )
        uid = uid or kept[0]["uid"] or new_uid()
        data = json.dumps({**dashboard, "id": kept[0]["id"], "uid": uid})
        sql = """UPDATE dashboard SET uid = ?, title = ?, folder_id = ?, updated = ?, data = ?, provider = ?, path = ?,
            checksum = ?, version = version + 1 WHERE id = ?"""
        run(sql, uid, title, folder, now(), data, *mine, checksum, kept[0]["id"])


def data_source(given: Json, old: bool) -> Json:
    """Give a data source as it is stored; one of an `old` file or without uid gets one of its name."""
    source = {key: given.get(key) or "" for key in ("type", "url", "user", "database", "basicAuthUser")}
    source |= {key: bool(given.get(key)) for key in ("basicAuth", "withCredentials", "isDefault")}
    access = given.get("access") if given.get("access") in ("proxy", "direct") else "proxy"
    made = "P" + hashlib.sha256(given["name"].encode()).hexdigest()[:16].upper()
    source |= {"name": given["name"], "access": access, "uid": made if old else given.get("uid") or made}
    source |= {"jsonData": given.get("jsonData") or {}, "secrets": given.get("secureJsonData") or {}}
    return {**source, "orgId": 1, "readOnly": not given.get("editable")}


def check_group(group: Json, where: str) -> None:
    need(group.get("name"), f"{where}rule group has no name set")
    need(group.get("folder"), f"{where}rule group has no folder set")
    duration(group.get("interval"), where)
    for rule in group.get("rules") or []:
        need(rule.get("title"), f"{where}rule has no title set")
        here = f"{where}rule '{rule['title']}' failed to parse: "
        need(rule.get("uid"), f"{here}no UID set")
        duration(rule.get("for"), here)
        for key, known in (("noDataState", "NoData"), ("execErrState", "Error")):
            state = rule.get(key, known)
            need(state in ("Alerting", "OK", known), f"{here}unknown {known} state option {state}")
        need(rule.get("condition"), f"{here}no condition set")
        need(rule.get("data"), f"{here}no data set")


def check_saved(group: Json, titles: dict[tuple[str, str], str]) -> None:
    """Check what a real server notices only when it stores the rules."""
    unfit = f"interval ({group['interval']}) should be non-zero and divided exactly by scheduler interval: 10"
    need(duration(group["interval"]) % 10 == 0, f"alert rules: invalid alert rule: {unfit}")
    for rule in group["rules"]:
        for query in rule["data"]:
            span = query.get("relativeTimeRange") or {}
            fine = query.get("datasourceUid") == "__expr__" or span.get("from", 0) > span.get("to", 0)
            fault = "invalid relative time range: {From:0s To:0s}"
            need(fine, f"alert rules: invalid alert query {query.get('refId')}: {fault}")
        owner = titles.setdefault((group["folder"], rule["title"]), rule["uid"])
        fault = "rule title under the same organisation and folder should be unique"
        need(owner == rule["uid"], f"alert rules: a conflicting alert rule is found: {fault}")


def check_point(point: Json, where: str) -> None:
    for receiver in point.get("receivers") or []:
        kind = receiver.get("type")
        need(receiver.get("uid"), f"{where}no uid is set")
        need(kind in RECEIVERS, f"{where}unknown type '{kind}'")
        fault = f"required field '{RECEIVERS[kind]}' is not specified"
        fine = (receiver.get("settings") or {}).get(RECEIVERS[kind])
        need(fine, f'{where}failed to validate receiver of type "{kind}": {fault}')


def check_policy(policy: Json, where: str) -> None:
    for key in {"group_wait", "group_interval", "repeat_interval"} & set(policy):
        duration(policy[key], where)
    for _, operator, _ in policy.get("object_matchers") or []:
        need(operator in ("=", "!=", "=~", "!~"), f'{where}unsupported match type "{operator}" in matcher')
    for route in policy.get("routes") or []:
        check_policy(route, where)
