"""The files as a Grafana takes them: the rehearsal's substitute, and what a real one was seen to refuse."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.vendor import recordings
from tests.vendor.servers import grafana_process, wait_for

from .provisioned import Provisioned, provision

RECORDED = "provisioning/alerting/ranch.yaml"


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield path and value of each leaf; of a list's parts the path is the same."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, f"{path}/{key}")
    elif isinstance(tree, list):
        for value in tree:
            yield from leaves(value, f"{path}[]")
    else:
        yield path, tree


def refused() -> dict[str, list[tuple[str, Any]]]:
    """Case -> what a real server would not start with: paths and their values, None for one that was missing."""
    recorded = recordings.load("grafana-provisioning-cases.json")
    base = set(leaves(yaml.safe_load(recorded["base"][RECORDED])))
    found: dict[str, list[tuple[str, Any]]] = {}
    for case in recorded["cases"]:
        if case["fresh"] != "exits 1" or RECORDED not in case["changed"]:
            continue
        changed = set(leaves(yaml.safe_load(case["changed"][RECORDED])))
        paths = {path for path, _ in changed}
        missing = [(path, None) for path, _ in base - changed if path not in paths]
        found[case["name"]] = missing or list(changed - base)
    return found


def test_alerting_files_have_nothing_that_a_real_server_refused(ranch: Provisioned, tmp_path: Path) -> None:
    told = provision(
        tmp_path,
        grafana_alarm_webhook_url="https://ntfy.example.com/ranch",
        grafana_alarm_email="us@example.com",
        grafana_smtp_host="mail.example.com:587",
        grafana_smtp_from="power@example.com",
    )
    cases = refused()
    assert len(cases) >= 12
    for made in ({**ranch.alarms, **told.contacts}, ranch.alarms):
        ours = list(leaves(made))
        for name, faults in cases.items():
            for path, value in faults:
                where = path.replace(
                    "/contactPoints[]/receivers[]/settings/url", "/contactPoints[]/receivers[]/settings"
                )
                if not any(p.startswith(where.split("[]")[0]) for p, _ in ours):
                    continue
                if value is None:
                    assert _everywhere(made, path), f"{name}: {path} is missing"
                else:
                    assert (path, value) not in ours, name


def _everywhere(tree: Any, path: str) -> bool:
    """Say whether each part of the lists on the way has the path's last key; settings are a receiver's own."""
    keys = path.replace("[]", "/[]").strip("/").split("/")

    def look(node: Any, rest: list[str]) -> bool:
        if not rest:
            return node not in (None, "")
        if rest[0] == "[]":
            return bool(node) and all(look(one, rest[1:]) for one in node)
        if rest[0] in ("url", "relativeTimeRange") and (
            node.get("datasourceUid") == "__expr__" or "addresses" in node
        ):
            return True
        return isinstance(node, dict) and rest[0] in node and look(node[rest[0]], rest[1:])

    return look(tree, keys)


def test_titles_are_unique_and_intervals_fit_the_scheduler(ranch: Provisioned) -> None:
    (group,) = ranch.alarms["groups"]
    titles = [rule["title"] for rule in ranch.rules]
    assert len(set(titles)) == len(titles)
    seconds = {"30s": 30}[group["interval"]]
    assert seconds % 10 == 0
    for rule in ranch.rules:
        (query, *expressions) = rule["data"]
        assert query["relativeTimeRange"]["from"] > query["relativeTimeRange"]["to"]
        assert query["datasourceUid"] == "influxdb"
        assert [part["refId"] for part in rule["data"]] == ["A", "B", "C"]
        assert rule["condition"] == "C"
        assert all(part["datasourceUid"] == "__expr__" for part in expressions)


def test_the_rehearsals_grafana_serves_the_dashboards_and_takes_the_alarms(ranch: Provisioned) -> None:
    server = grafana_process(ranch.folder, (ranch.folder / "grafana.ini").read_text())
    log = ranch.folder / "log"
    try:
        assert wait_for(
            server,
            lambda: all(
                server.ask("GET", f"/api/dashboards/uid/{uid}").status == 200 for uid in ranch.dashboards
            ),
        ), log.read_text()
        folders: Any = server.ask("GET", "/api/folders").json()
        assert [folder["title"] for folder in folders] == ["Alarms"]
        home: Any = server.ask("GET", "/api/dashboards/home").json()
        assert home["dashboard"]["uid"] == "power_room"
        save = {"dashboard": ranch.dashboards["power_room"]}
        assert server.ask("POST", "/api/dashboards/db", body=save).status in (400, 403)
    finally:
        server.stop()
