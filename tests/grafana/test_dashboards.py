"""The dashboards, as the grafana role writes them for an inventory: rendered by the same Ansible module, then looked at."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from power_collector import contract

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "files/grafana/dashboards").iterdir())
RANCH = yaml.safe_load((ROOT / "inventory/ranch/group_vars/all/power_room.yml").read_text())

Json = dict[str, Any]


def render(folder: Path, **changed: Any) -> dict[str, Json]:
    """Write all dashboards for the ranch's power room with `changed` values, as the role does."""
    values = folder / "values.json"
    values.write_text(json.dumps(RANCH | changed))
    made = {}
    for source in SOURCES:
        target = folder / source.name.removesuffix(".j2")
        if source.suffix == ".j2":
            command = [
                str(Path(sys.executable).with_name("ansible")), "localhost", "-c", "local", "-m", "ansible.builtin.template",
                "-a", f"src={source} dest={target}", "-e", f"@{ROOT}/roles/grafana/defaults/main.yml", "-e", f"@{values}",
            ]  # fmt: skip
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
        else:
            target.write_bytes(source.read_bytes())
        made[target.name] = json.loads(target.read_text())
    return made


@pytest.fixture(scope="module")
def dashboards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Json]:
    """All dashboards for the ranch."""
    return render(tmp_path_factory.mktemp("ranch"))


@pytest.fixture(scope="module")
def power_room(dashboards: dict[str, Json]) -> Json:
    """The first dashboard."""
    return dashboards["power_room.json"]


def panels(dashboard: Json) -> list[Json]:
    """All panels, those of collapsed rows included."""
    return [p for panel in dashboard["panels"] for p in (panel, *panel.get("panels", []))]


def queries(dashboard: Json) -> Iterator[tuple[str, str]]:
    """Yield panel title and query of each target."""
    for panel in panels(dashboard):
        for target in panel.get("targets", []):
            yield panel["title"], target["query"]


def chargers(dashboard: Json) -> list[Json]:
    """The chargers' gauges, from left to right and from above to below."""
    found = [p for p in panels(dashboard) if "charge_controller" in p["targets"][0]["query"]]
    return sorted(found, key=lambda p: (p["gridPos"]["y"], p["gridPos"]["x"]))


def overlapping(dashboard: Json) -> list[tuple[str, str]]:
    """Pairs of panels that lie on each other."""
    boxes = [(p["title"], p["gridPos"]) for p in dashboard["panels"]]
    return [
        (one, other)
        for i, (one, a) in enumerate(boxes)
        for other, b in boxes[:i]
        if a["x"] < b["x"] + b["w"]
        and b["x"] < a["x"] + a["w"]
        and a["y"] < b["y"] + b["h"]
        and b["y"] < a["y"] + a["h"]
    ]


def lost(before: Any, after: Any, path: str = "") -> list[str]:
    """Say which keys and values of `before` are not in `after`; Grafana's types add their own defaults."""
    if isinstance(before, dict):
        if not isinstance(after, dict):
            return [path]
        return [
            gone
            for key, value in before.items()
            for gone in (lost(value, after[key], f"{path}.{key}") if key in after else [f"{path}.{key}"])
            if value is not None or key in after
        ]
    if isinstance(before, list):
        if not isinstance(after, list) or len(after) != len(before):
            return [path]
        return [
            gone
            for i, pair in enumerate(zip(before, after, strict=True))
            for gone in lost(*pair, f"{path}[{i}]")
        ]
    return [] if before == after else [path]


def test_there_are_dashboards() -> None:
    assert [s.name for s in SOURCES if s.name.startswith("power_room.json")]


def test_grafanas_own_types_take_each_dashboard_and_lose_nothing(dashboards: dict[str, Json]) -> None:
    pytest.importorskip("grafana_foundation_sdk")
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    register_default_plugins()
    for name, before in dashboards.items():
        after = json.loads(json.dumps(Dashboard.from_json(before), cls=JSONEncoder))
        assert lost(before, after) == [], name


def test_uids_and_titles_are_unique(dashboards: dict[str, Json]) -> None:
    # two of one uid or title silence the whole provider
    for key in ("uid", "title"):
        values = [d[key] for d in dashboards.values()]
        assert len(set(values)) == len(values)
    for dashboard in dashboards.values():
        assert re.fullmatch(r"[A-Za-z0-9_]{1,40}", dashboard["uid"])
        assert dashboard["id"] is None
        assert dashboard["editable"] is False
        ids = [p["id"] for p in panels(dashboard)]
        assert len(set(ids)) == len(ids)
        assert overlapping(dashboard) == []
        assert all(p["gridPos"]["x"] + p["gridPos"]["w"] <= 24 for p in dashboard["panels"])


def test_everything_asks_the_provisioned_data_source_in_raw_influxql(dashboards: dict[str, Json]) -> None:
    for dashboard in dashboards.values():
        assert "__inputs" not in dashboard
        for panel in panels(dashboard):
            for part in (panel, *panel.get("targets", [])):
                assert part["datasource"] == {"type": "influxdb", "uid": "influxdb"}
            assert all(t["rawQuery"] is True for t in panel.get("targets", []))


def test_each_query_is_bounded_in_time(dashboards: dict[str, Json]) -> None:
    bounded = re.compile(r"\bWHERE\b.*(\$timeFilter|\btime > now\(\) - \d+[smhd])")
    unbounded = [q for d in dashboards.values() for q in queries(d) if not bounded.search(q[1])]
    assert unbounded == []


def test_each_query_asks_for_what_the_contract_has(dashboards: dict[str, Json]) -> None:
    shape = re.compile(r'SELECT \w+\("([^"]+)"\)(?: / \d+)? FROM "([^"]+)" WHERE ')
    for dashboard in dashboards.values():
        for title, query in queries(dashboard):
            found = shape.match(query)
            assert found, f"{title}: {query}"
            measurement = contract.measurement(found[2])
            assert found[1] in measurement.fields, f"{title}: {query}"
            tags = re.findall(r'"([^"]+)" =', query)
            assert set(tags) <= set(measurement.tags), f"{title}: {query}"


def test_the_old_dashboards_panels_are_there(power_room: Json) -> None:
    ranges = {
        p["title"]: (p["fieldConfig"]["defaults"]["min"], p["fieldConfig"]["defaults"]["max"])
        for p in panels(power_room)
        if p["type"] == "gauge"
    }
    power = dict.fromkeys(("Solar output", "System load", "Inverter output", "Inverter charge"), (0, 16))
    current = dict.fromkeys(("AC output current", "AC charge current"), (-1, 80))
    each = {f"#{i}": (0, 3000) for i in range(1, 7)}
    assert ranges == {"Battery voltage": (48, 58)} | power | current | each
    history = [
        q for p in panels(power_room) if p["type"] == "timeseries" for q in (t["query"] for t in p["targets"])
    ]
    for field in ("battery_voltage", "power_kw", "total_load_power_kw"):
        assert any(f'"{field}"' in q and "$timeFilter" in q for q in history)
    assert power_room["time"] == {"from": "now-6h", "to": "now"}


def test_battery_is_green_from_50_to_55(power_room: Json) -> None:
    steps = panels(power_room)[0]["fieldConfig"]["defaults"]["thresholds"]["steps"]

    def colour(value: float) -> str:
        return [s["color"] for s in steps if s["value"] is None or s["value"] <= value][-1]

    assert {colour(v) for v in (50, 52.5, 54.9)} == {"green"}
    assert "green" not in {colour(v) for v in (47, 49.9, 55, 57)}


def test_a_gauge_shows_nothing_that_is_older_than_two_minutes(dashboards: dict[str, Json]) -> None:
    shown = [p for d in dashboards.values() for p in panels(d) if p["type"] in ("gauge", "stat")]
    assert shown
    for panel in shown:
        defaults = panel["fieldConfig"]["defaults"]
        assert defaults["noValue"] == "no data"
        # without data Grafana takes the colour of the first step
        assert defaults["thresholds"]["steps"][0] == {"color": "text", "value": None}
        for target in panel["targets"]:
            assert re.search(r"SELECT last\(.*time > now\(\) - 2m$", target["query"])


def test_chargers_stand_from_the_last_to_the_first(power_room: Json) -> None:
    found = chargers(power_room)
    assert [p["title"] for p in found] == ["#6", "#5", "#4", "#3", "#2", "#1"]
    asked = [re.search(r"\"device\" = '(\w+)'", p["targets"][0]["query"]) for p in found]
    assert [m and m[1] for m in asked] == ["sc6", "sc5", "sc4", "sc3", "sc2", "sc1"]


@pytest.mark.parametrize("count", [0, 1, 7, 20])
def test_chargers_follow_the_inventory(tmp_path: Path, count: int) -> None:
    mate, charger = RANCH["power_room_devices"][:2]
    devices = [mate, *({**charger, "name": f"sc{i}"} for i in range(1, count + 1))]
    dashboard = render(tmp_path, power_room_devices=devices)["power_room.json"]
    assert [p["title"] for p in chargers(dashboard)] == [f"#{i}" for i in range(count, 0, -1)]
    assert overlapping(dashboard) == []
    assert all(p["gridPos"]["x"] + p["gridPos"]["w"] <= 24 for p in dashboard["panels"])


def test_a_charger_without_a_number_has_its_name(tmp_path: Path) -> None:
    mate, charger = RANCH["power_room_devices"][:2]
    dashboard = render(tmp_path, power_room_devices=[mate, {**charger, "name": "barn"}])["power_room.json"]
    assert [p["title"] for p in chargers(dashboard)] == ["barn"]
