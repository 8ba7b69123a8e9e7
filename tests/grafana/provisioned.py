"""What the grafana role provisions for an inventory, rendered by Ansible from the role's own variables."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parents[2]
FILES = ROOT / "files/grafana"
RANCH: dict[str, Any] = yaml.safe_load((ROOT / "inventory/ranch/group_vars/all/power_room.yml").read_text())
WORDS: dict[str, Any] = yaml.safe_load((FILES / "words.yml").read_text())

ADMIN_PASSWORD = "adminpassword"

Json = dict[str, Any]


@dataclass(frozen=True)
class Provisioned:
    """Dashboards by uid, the alarms' rules, and who is told of them."""

    folder: Path
    dashboards: dict[str, Json]
    alarms: Json
    contacts: Json

    @property
    def rules(self) -> list[Json]:
        """All alarm rules."""
        return [rule for group in self.alarms["groups"] for rule in group["rules"]]


class Query(NamedTuple):
    """A target of a panel. `unit` is Grafana's, `colour` None where values have words instead."""

    dashboard: str
    panel: Json
    name: str
    text: str
    properties: Json


def run_playbook(folder: Path, **changed: Any) -> subprocess.CompletedProcess[str]:
    """Render everything for the ranch's power room with `changed` values."""
    fixed = {
        "folder": str(folder),
        "role_path": str(ROOT / "roles/grafana"),
        "inventory_hostname": "power",
        "__grafana_dashboards": f"{folder}/dashboards",
        "__grafana_secrets": f"{folder}/secrets",
        "influxdb_grafana_user": "grafana",
        "influxdb_http_bind_address": "127.0.0.1:8086",
        "secrets": {
            "grafana_admin_password": ADMIN_PASSWORD,
            "grafana_secret_key": "0123456789abcdef",
            "influxdb_grafana_password": "readonlypassword",
        },
    }
    values = folder / "values.json"
    values.write_text(json.dumps({**fixed, **RANCH, **changed}))
    playbook = [
        str(Path(sys.executable).with_name("ansible-playbook")),
        str(Path(__file__).with_name("render.yml")),
    ]
    command = [*playbook, "-i", "localhost,", "-e", f"@{values}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)


def provision(folder: Path, **changed: Any) -> Provisioned:
    """Render everything and read it back."""
    done = run_playbook(folder, **changed)
    assert done.returncode == 0, done.stdout + done.stderr
    for name, text in json.loads((folder / "rendered.json").read_text()).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    dashboards = [json.loads(path.read_text()) for path in sorted((folder / "dashboards").iterdir())]
    alarms, contacts = (
        yaml.safe_load((folder / f"provisioning/alerting/{name}.yaml").read_text())
        for name in ("alarms", "contacts")
    )
    return Provisioned(folder, {one["uid"]: one for one in dashboards}, alarms, contacts)


def panels(dashboard: Json) -> list[Json]:
    """All panels, those of collapsed rows included."""
    return [p for panel in dashboard["panels"] for p in (panel, *panel.get("panels", []))]


def queries(provisioned: Provisioned) -> Iterator[Query]:
    """Yield each target of each panel of each dashboard."""
    for uid, dashboard in provisioned.dashboards.items():
        for panel in panels(dashboard):
            for target in panel.get("targets", []):
                yield Query(uid, panel, target["alias"], target["query"], properties(panel, target))


def properties(panel: Json, target: Json) -> Json:
    """What Grafana makes of the values of a target: the panel's defaults and what overrides them."""
    found = dict(panel["fieldConfig"]["defaults"])
    for override in panel["fieldConfig"]["overrides"]:
        own = (
            {"id": "byFrameRefID", "options": target["refId"]},
            {"id": "byName", "options": target["alias"]},
        )
        if override["matcher"] in own:
            found |= {one["id"]: one["value"] for one in override["properties"]}
    return found
