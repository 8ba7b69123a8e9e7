"""The dashboards, as the grafana role writes them for an inventory: what Grafana would make of them, without one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from power_collector import contract
from power_collector.enumerations import ENUMERATIONS

from .provisioned import FILES, RANCH, ROOT, WORDS, Json, Provisioned, panels, provision, queries

UIDS = ["power_days", "power_devices", "power_hours", "power_monitor", "power_room"]
"""Links, bookmarks and the kiosk know them: they never change."""
GRID_ROW_PX, GRID_GAP_PX, PAGE_MARGIN_PX = 30, 8, 16
SOURCE = {"type": "influxdb", "uid": "influxdb"}


@pytest.fixture
def power_room(ranch: Provisioned) -> Json:
    return ranch.dashboards["power_room"]


def titled(dashboard: Json, title: str) -> Json:
    (found,) = (panel for panel in panels(dashboard) if panel["title"] == title)
    return found


def chargers(dashboard: Json) -> list[Json]:
    """The chargers' gauges, from left to right and from above to below."""
    found = [
        p
        for p in panels(dashboard)
        if p["type"] == "gauge" and "charge_controller" in p["targets"][0]["query"]
    ]
    return sorted(found, key=lambda p: (p["gridPos"]["y"], p["gridPos"]["x"]))


def overlapping(dashboard: Json) -> list[tuple[int, int]]:
    """Pairs of panels that lie on each other."""
    boxes = [(p["id"], p["gridPos"]) for p in dashboard["panels"]]
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


def test_uids_are_kept(ranch: Provisioned) -> None:
    assert sorted(ranch.dashboards) == UIDS


def test_grafanas_own_types_take_each_dashboard_and_lose_nothing(ranch: Provisioned) -> None:
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    register_default_plugins()
    for uid, before in ranch.dashboards.items():
        after = json.loads(json.dumps(Dashboard.from_json(before), cls=JSONEncoder))
        assert lost(before, after) == [], uid


def test_titles_and_ids_are_unique_and_nothing_overlaps(ranch: Provisioned) -> None:
    # two dashboards of one title silence their whole provider
    assert len({d["title"] for d in ranch.dashboards.values()}) == len(ranch.dashboards)
    for dashboard in ranch.dashboards.values():
        assert dashboard["id"] is None
        assert dashboard["editable"] is False
        ids = [p["id"] for p in panels(dashboard)]
        assert len(set(ids)) == len(ids)
        assert overlapping(dashboard) == []
        assert all(p["gridPos"]["x"] + p["gridPos"]["w"] <= 24 for p in dashboard["panels"])


def test_everything_asks_the_provisioned_data_source_in_raw_influxql(ranch: Provisioned) -> None:
    for dashboard in ranch.dashboards.values():
        for panel in panels(dashboard):
            assert panel["datasource"] == SOURCE
            for target in panel.get("targets", []):
                assert target["datasource"] == SOURCE
                assert target["rawQuery"] is True


def levels(text: str) -> list[str]:
    """Give each SELECT of a query without those in its brackets, the outermost last."""
    before = ""
    while before != text:  # the brackets of calls and sums
        before, text = text, re.sub(r"\((?!SELECT)([^()]*)\)", r"[\1]", text)
    found = []
    while inner := re.search(r"\(SELECT [^()]*\)", text):
        found.append(inner[0])
        text = text.replace(inner[0], "...", 1)
    return [*found, text]


def test_each_select_of_a_query_is_bounded_in_time(ranch: Provisioned) -> None:
    """The outermost too, as far back as the furthest inside: the database opens the files of its time, and not of theirs."""
    bound = re.compile(
        r"\bWHERE\b.*(?:\$timeFilter|\btime > now\[\] - (?P<count>\d+)(?P<unit>[smhd]))", re.DOTALL
    )
    asked = [(q.name, q.text) for q in queries(ranch)]
    asked += [(rule["title"], rule["data"][0]["model"]["query"]) for rule in ranch.rules]
    for title, text in asked:
        bounds = [bound.search(one) for one in levels(text)]
        assert all(bounds), (title, text)
        seconds = [
            int(b["count"] or 0) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[b["unit"] or "s"]
            for b in bounds
            if b
        ]
        assert seconds[-1] == max(seconds), (title, text)


def test_a_time_series_asks_by_interval(ranch: Provisioned) -> None:
    series = [q for q in queries(ranch) if q.panel["type"] in ("timeseries", "barchart")]
    assert series
    for query in series:
        assert re.search(r"\$timeFilter GROUP BY time\((\$__interval|1d)\)", query.text), query.text
        assert re.fullmatch(r"15s|1m|1d", query.panel["interval"])


def test_days_are_the_sites(ranch: Provisioned) -> None:
    days = [q.text for q in queries(ranch) if "time(1d)" in q.text]
    zone = ranch.dashboards["power_days"]["timezone"]
    assert days
    assert all(text.endswith(f"tz('{zone}')") for text in days)
    assert {d["timezone"] for d in ranch.dashboards.values()} == {zone}


def names(text: str) -> tuple[set[str], set[str]]:
    """Measurements, and whatever else a query has in double quotes but its own column names."""
    own = set(re.findall(r'AS "([^"]+)"', text))
    measurements = set(re.findall(r'FROM "([^"]+)"', text))
    return measurements, set(re.findall(r'"([^"]+)"', text)) - own - measurements


def test_each_query_asks_for_what_the_contract_has(ranch: Provisioned) -> None:
    asked = [q.text for q in queries(ranch)] + [rule["data"][0]["model"]["query"] for rule in ranch.rules]
    for text in asked:
        measurements, others = names(text)
        assert measurements, text
        found = [contract.measurement(name) for name in measurements]
        known = {name for one in found for name in (*one.fields, *one.tags)}
        assert others <= known, f"{others - known}: {text}"


def test_the_old_screens_gauges_are_one_touch_away(ranch: Provisioned) -> None:
    gauges = {
        p["title"]: (p["fieldConfig"]["defaults"]["min"], p["fieldConfig"]["defaults"]["max"])
        for d in ("power_room", "power_hours")
        for p in panels(ranch.dashboards[d])
        if p["type"] == "gauge"
    }
    power = dict.fromkeys(("Solar", "Load", "Inverter out", "Charge"), (0, 16))
    current = dict.fromkeys(("AC output", "AC charge"), (-1, 80))
    each = {f"#{i}": (0, 3) for i in range(1, 7)}
    assert gauges == {"Battery": (48, 58)} | power | current | each
    hours = ranch.dashboards["power_hours"]
    assert hours["time"] == {"from": "now-6h", "to": "now"}
    history = " ".join(t["query"] for p in panels(hours) if p["type"] == "timeseries" for t in p["targets"])
    for field in (
        "battery_voltage",
        "power_kw",
        "total_load_power_kw",
        "total_output_power_kw",
        "total_charge_power_kw",
    ):
        assert f'"{field}"' in history


def test_battery_is_green_from_50_to_55(power_room: Json) -> None:
    (override,) = titled(power_room, "Battery")["fieldConfig"]["overrides"]
    steps = {p["id"]: p["value"] for p in override["properties"]}["thresholds"]["steps"]

    def colour(value: float) -> str:
        return str([s["color"] for s in steps if s["value"] is None or s["value"] <= value][-1])

    assert {colour(v) for v in (50, 52.5, 54.9)} == {WORDS["colours"]["good"]}
    assert WORDS["colours"]["good"] not in {colour(v) for v in (47, 49.9, 55, 57)}


def test_nothing_older_than_two_minutes_is_shown_as_a_value(ranch: Provisioned) -> None:
    """But how old it is, what was counted over a time that the name tells, and the days' energy."""
    shown = [q for q in queries(ranch) if q.panel["type"] in ("gauge", "stat", "table")]
    assert len(shown) > 50
    told = ("newest reading", "newest", "in 10 min")
    for query in shown:
        if query.name in told or '"daily_energy"' in query.text:
            continue
        if query.panel["id"] == 1:  # alarms look further back; its first row tells that nothing is new
            continue
        assert set(re.findall(r"now\(\) - (\w+)", query.text)) == {"2m"}, query.text


def test_what_is_missing_is_said_in_a_neutral_colour(ranch: Provisioned) -> None:
    for query in queries(ranch):
        if query.panel["type"] not in ("gauge", "stat"):
            continue
        assert query.properties["noValue"]
        assert query.properties["color"] == {"mode": "thresholds"}
        # without data Grafana takes the colour of the first step
        assert query.properties["thresholds"]["steps"][0] == {
            "color": WORDS["colours"]["none"],
            "value": None,
        }


def colours(of: Any) -> set[str]:
    if isinstance(of, dict):
        own = {
            value for key, value in of.items() if key in ("color", "fixedColor") and isinstance(value, str)
        }
        return own.union(*(colours(value) for value in of.values()))
    if isinstance(of, list):
        return set().union(*(colours(value) for value in of))
    return set()


def test_colours_and_units_come_from_one_place(ranch: Provisioned) -> None:
    known = {
        c for value in WORDS["colours"].values() for c in (value if isinstance(value, list) else [value])
    }
    units = {(unit["unit"], unit["decimals"]) for unit in WORDS["units"].values()}
    count = WORDS["units"]["count"]["decimals"]
    for dashboard in ranch.dashboards.values():
        assert colours(dashboard) <= known
    for query in queries(ranch):
        if "unit" in query.properties:
            pair = (query.properties["unit"], query.properties["decimals"])
            assert pair in units or pair == ("suffix: of 6", count), query
    for source in (FILES / "dashboards").glob("*.json.j2"):
        assert not re.search(r"'#[0-9a-f]{6}|'unit': '(?!suffix: of )", source.read_text()), source.name


def test_the_same_thing_has_the_same_colour_everywhere(ranch: Provisioned) -> None:
    def colour(properties: Json) -> str:
        fixed = properties.get("color", {}).get("fixedColor")
        return str(fixed or properties["thresholds"]["steps"][1]["color"])

    for thing in ("solar", "load", "generator", "grid"):
        found = {
            colour(q.properties)
            for q in queries(ranch)
            if q.name == thing and q.panel["type"] != "table" and q.properties.get("unit") != "none"
        }
        assert found == {WORDS["colours"][thing]}, thing


def test_words_are_there_for_each_number_and_bit_of_the_contract() -> None:
    for (measurement, field), kind in ENUMERATIONS.items():
        assert field in contract.measurement(measurement).fields
        numbers = WORDS["numbers"].get(measurement, {}).get(field)
        bits = WORDS["bits"].get(measurement, {}).get(field)
        given = set(numbers) if numbers else {1 << bit for bit in bits}
        assert given == {int(one.value) for one in kind}, (measurement, field)


def test_a_table_shows_each_number_and_each_single_bit_in_words(ranch: Provisioned) -> None:
    tables = {
        t: titled(ranch.dashboards["power_devices"], t)["fieldConfig"]["overrides"]
        for t in ("Chargers", "Inverters")
    }
    expected = {
        ("Chargers", "state"): ("charge_controller", "charge_state"),
        ("Chargers", "fault"): ("charge_controller", "faults"),
        ("Chargers", "warning"): ("charge_controller", "alarms"),
        ("Inverters", "mode"): ("inverter", "mode"),
        ("Inverters", "error"): ("inverter", "errors"),
        ("Inverters", "warning"): ("inverter", "warnings"),
    }
    for (table, column), (measurement, field) in expected.items():
        (override,) = (o for o in tables[table] if o["matcher"]["options"] == column)
        mappings = {p["id"]: p["value"] for p in override["properties"]}["mappings"]
        texts = {int(number): one["text"] for number, one in mappings[0]["options"].items()}
        bits = WORDS["bits"].get(measurement, {}).get(field)
        if bits is None:
            assert texts == {n: word["text"] for n, word in WORDS["numbers"][measurement][field].items()}
        else:
            words = {bit: bits.get(bit, "other") for bit in range(32)}
            assert texts == {0: "none"} | {1 << bit: word for bit, word in words.items()}
            # more than one at once
            assert mappings[1]["type"] == "range"
            assert mappings[1]["options"]["result"]["text"] == "several"


def test_words_of_a_field_differ() -> None:
    """They are names of columns, and one who reads them has to tell one from the other."""
    for fields in WORDS["bits"].values():
        for words in fields.values():
            assert len(set(words.values()) | {"none", "other", "several"}) == len(words) + 3


def test_all_chargers_may_tell_a_fault_and_a_warning_at_once(ranch: Provisioned) -> None:
    panel = titled(ranch.dashboards["power_devices"], "Faults and warnings")
    assert panel["options"]["reduceOptions"]["limit"] >= 2 * 6


def test_each_dashboard_leads_to_all_others(ranch: Provisioned) -> None:
    for uid, dashboard in ranch.dashboards.items():
        html = " ".join(p["options"]["content"] for p in panels(dashboard) if p["type"] == "text")
        # kiosk stays, or the menu would come back on the wall
        assert sorted(re.findall(r'href="/d/(\w+)\?kiosk"', html)) == sorted(set(UIDS) - {uid})


def test_home_fits_the_seven_inch_screen_without_scrolling(power_room: Json) -> None:
    rows = max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in power_room["panels"])
    assert rows * (GRID_ROW_PX + GRID_GAP_PX) - GRID_GAP_PX + 2 * PAGE_MARGIN_PX <= 480


def test_home_names_the_address_for_a_phone(power_room: Json) -> None:
    assert any("power.local:3000" in p["options"].get("content", "") for p in panels(power_room))


def test_chargers_hang_from_the_last_to_the_first(ranch: Provisioned) -> None:
    found = chargers(ranch.dashboards["power_hours"])
    assert [p["title"] for p in found] == ["#6", "#5", "#4", "#3", "#2", "#1"]
    asked = [re.search(r"\"device\" = '(\w+)'", p["targets"][0]["query"]) for p in found]
    assert [m and m[1] for m in asked] == ["sc6", "sc5", "sc4", "sc3", "sc2", "sc1"]


@pytest.mark.parametrize("count", [0, 1, 7, 20])
def test_chargers_follow_the_inventory(tmp_path: Path, count: int) -> None:
    mate, charger = RANCH["power_room_devices"][:2]
    devices = [mate, *({**charger, "name": f"sc{i}"} for i in range(1, count + 1))]
    made = provision(tmp_path, power_room_devices=devices)
    assert [p["title"] for p in chargers(made.dashboards["power_hours"])] == [
        f"#{i}" for i in range(count, 0, -1)
    ]
    for dashboard in made.dashboards.values():
        assert overlapping(dashboard) == []
        assert all(p["gridPos"]["x"] + p["gridPos"]["w"] <= 24 for p in dashboard["panels"])
    each = [q.name for q in queries(made) if q.panel["title"] == "Each charger"]
    assert each == [f"#{i}" for i in range(1, count + 1)]
    unit = next(
        q.properties["unit"]
        for q in queries(made)
        if q.panel["title"] == "Chargers" and q.dashboard == "power_room"
    )
    assert unit == f"suffix: of {count}"


def test_a_charger_without_a_number_has_its_name(tmp_path: Path) -> None:
    mate, charger = RANCH["power_room_devices"][:2]
    made = provision(tmp_path, power_room_devices=[mate, {**charger, "name": "barn"}])
    assert [p["title"] for p in chargers(made.dashboards["power_hours"])] == ["barn"]


@pytest.mark.parametrize("inputs", [[], ["generator"]])
def test_what_the_site_does_not_have_is_not_shown(inputs: list[str], tmp_path: Path) -> None:
    made = provision(tmp_path, grafana_ac_inputs=inputs)
    asked = " ".join(query.text for query in queries(made))
    for name in ("generator", "grid"):
        assert (f'"{name}_power_kw"' in asked, f'"{name}_kwh"' in asked) == (name in inputs, name in inputs)
    titles = [panel["title"] for panel in panels(made.dashboards["power_room"])]
    assert ("Generator" in titles) == bool(inputs)


def test_no_dashboard_knows_an_address_of_a_device() -> None:
    for path in FILES.rglob("*"):
        if path.is_file():
            assert not re.search(r"\b192\.168\.", path.read_text()), path.relative_to(ROOT)
