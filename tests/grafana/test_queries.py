"""Every query of every panel, asked of the rehearsal's database with a simulated day in it: values and units."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from power_collector import contract
from power_collector.contract import Point

from .influxql import Database, database, rows
from .provisioned import WORDS, Provisioned, Query, queries
from .room import Change, Room, with_values, without_backup

GRAFANA_UNITS = {
    "kW": "suffix: kW", "W": "suffix: W", "kWh": "suffix: kWh", "V": "suffix: V", "A": "suffix: A",
    "°C": "suffix: °C", "%": "percent", "ms": "ms", "s": "s", "h": "h", "MB": "decmbytes",
    "GB": "decgbytes", "": "none",
}  # fmt: skip
"""The contract's unit -> how Grafana shows it."""

LAST = re.compile(
    r'SELECT last\("(?P<field>[^"]+)"\)(?: / (?P<scale>1000|24))? FROM "(?P<measurement>\w+)"'
    r" WHERE (?:\"(?P<tag>\w+)\" = '(?P<value>[^']+)' AND )?time > now\(\) - (?:2m|30d)"
)
MEAN = re.compile(
    r'SELECT mean\("(?P<field>[^"]+)"\) FROM "(?P<measurement>\w+)" WHERE \$timeFilter GROUP BY time\(\$__interval\) fill\(null\)'
)
SUM = re.compile(
    r'SELECT sum\("(?P<field>\w+)"\) FROM "daily_energy" WHERE time > now\(\) - (?P<days>\d+)d(?: AND "device" = \'(?P<device>\w+)\')?'
)
DAILY = re.compile(
    r'SELECT sum\("(?P<field>\w+)"\) FROM "daily_energy" WHERE (?:"device" = \'(?P<device>\w+)\' AND )?\$timeFilter'
    r" GROUP BY time\(1d\) fill\(none\) tz\('[\w/+-]+'\)"
)


def newest(points: list[Point], measurement: str, field: str, **tags: str) -> float:
    found = [
        p
        for p in points
        if p.measurement == measurement and field in p.fields and tags.items() <= p.tags.items()
    ]
    return max(found, key=lambda p: p.time).fields[field]


def energies(points: list[Point], field: str, device: str | None) -> dict[int, float]:
    """Day's begin -> kWh; of each device the point that was written last."""
    each: dict[tuple[str, int], float] = {}
    for p in points:
        if p.measurement == "daily_energy" and field in p.fields and device in (None, p.tags["device"]):
            each[p.tags["device"], p.time] = p.fields[field]
    days: dict[int, float] = defaultdict(float)
    for (_, begin), kwh in each.items():
        days[begin] += kwh
    return dict(days)


def is_moment(query: Query) -> bool:
    """Whether the time of a point is shown, and not its value."""
    return any(
        o["matcher"] == {"id": "byType", "options": "time"} for o in query.panel["fieldConfig"]["overrides"]
    )


def of_kind(ranch: Provisioned, kind: re.Pattern[str]) -> list[tuple[Query, dict[str, Any]]]:
    found = [(query, match.groupdict()) for query in queries(ranch) if (match := kind.fullmatch(query.text))]
    assert found
    return found


def test_each_last_value_is_the_newest_readings(
    ranch: Provisioned, day: Database, points: list[Point]
) -> None:
    asked = of_kind(ranch, LAST)
    assert len(asked) > 40
    for query, parts in asked:
        tags = {parts["tag"]: parts["value"]} if parts["tag"] else {}
        expected = newest(points, parts["measurement"], parts["field"], **tags)
        assert day.value(query.text) == pytest.approx(expected / float(parts["scale"] or 1)), query.text


def test_each_unit_is_the_contracts(ranch: Provisioned) -> None:
    for kind in (LAST, MEAN):
        for query, parts in of_kind(ranch, kind):
            field = contract.measurement(parts["measurement"]).fields[parts["field"]]
            shown = query.properties.get("unit")
            scaled = {("W", "1000"): "suffix: kW", ("h", "24"): "suffix: days ago"}
            expected = scaled.get((field.unit, str(parts.get("scale"))), GRAFANA_UNITS[field.unit])
            if query.panel["id"] != 1 and "mappings" not in query.properties and not is_moment(query):
                assert shown == expected or shown == "suffix: of 6", query.text
    for kind in (SUM, DAILY):
        assert {query.properties["unit"] for query, _ in of_kind(ranch, kind)} == {"suffix: kWh"}


def test_each_line_of_a_history_is_the_mean_of_its_interval(
    ranch: Provisioned, day: Database, points: list[Point], room: Room
) -> None:
    for query, parts in of_kind(ranch, MEAN):
        (series,) = day.ask(query.text, hours=6, interval_s=600)
        begin, value = next((at, v) for at, v in reversed(series["values"][:-1]) if v is not None)
        inside = [
            p.fields[parts["field"]]
            for p in points
            if p.measurement == parts["measurement"]
            and parts["field"] in p.fields
            and begin <= p.time < begin + 600
        ]
        assert value == pytest.approx(sum(inside) / len(inside)), query.text
        assert 36 <= len(series["values"]) <= 37
        assert begin > room.now - 1300


def test_each_sum_of_days(ranch: Provisioned, day: Database, points: list[Point], room: Room) -> None:
    for query, parts in of_kind(ranch, SUM):
        days = energies(points, parts["field"], parts["device"])
        expected = sum(kwh for begin, kwh in days.items() if begin > room.now - int(parts["days"]) * 86400)
        assert day.value(query.text) == pytest.approx(expected), query.text
        assert len(days) >= 3


def test_each_days_bar_begins_at_the_sites_midnight(
    ranch: Provisioned, day: Database, points: list[Point], room: Room
) -> None:
    for query, parts in of_kind(ranch, DAILY):
        (series,) = day.ask(query.text, hours=24 * 30)
        got = {at: value for at, value in series["values"] if value is not None}
        assert got == pytest.approx(energies(points, parts["field"], parts["device"])), query.text
        assert {(at + room.offset_h * 3600) % 86400 for at in got} == {0}


def test_a_row_for_each_charger(ranch: Provisioned, day: Database, points: list[Point], room: Room) -> None:
    (query,) = (q for q in queries(ranch) if q.panel["type"] == "table" and q.panel["title"] == "Chargers")
    found = rows(day.ask(query.text))
    names = [device["name"] for device in room.devices if device["driver"] != "outback"]
    fields = {"state": "charge_state", "power": "output_power_w", "today": "today_kwh", "battery": "battery_voltage_v",
              "target": "target_voltage_v", "heat": "heatsink_temperature_c", "fault": "faults", "warning": "alarms"}  # fmt: skip
    status = {"up": "up", "answer": "response_ms", "age": "age_s"}
    for name in names:
        own = [row for row in found if row["device"] == name]
        merged = {
            column: next((row[column] for row in own if row[column] is not None), None) for column in own[0]
        }
        for measurement, columns in (("charge_controller", fields), ("device_status", status)):
            for column, field in columns.items():
                assert merged[column] == pytest.approx(newest(points, measurement, field, device=name)), (
                    column
                )
    assert {row["device"] for row in found} == set(names)


def test_a_row_for_each_inverter_and_one_for_what_reads_them(
    ranch: Provisioned, day: Database, points: list[Point]
) -> None:
    (query,) = (q for q in queries(ranch) if q.panel["title"] == "Inverters")
    found = {row["port"]: row for row in rows(day.ask(query.text))}
    assert sorted(found) == ["", "1", "2", "3"]
    for port in ("1", "2", "3"):

        def value(field: str, port: str = port) -> float:
            return newest(points, "inverter", field, port=port)

        assert found[port]["mode"] == value("mode")
        assert found[port]["load"] == value("load_power_kw")
        assert found[port]["today"] == pytest.approx(
            value("l1_output_today_kwh") + value("l2_output_today_kwh")
        )
        assert found[port]["hottest"] == pytest.approx(value("left_transformer_temperature_c"))
    assert found[""]["device"] == "mate3s"
    assert found[""]["up"] == 1
    assert found[""]["answer"] == newest(points, "device_status", "response_ms", device="mate3s")


def flags(ranch: Provisioned) -> list[Query]:
    return [q for q in queries(ranch) if q.panel["title"] == "Faults and warnings"]


def test_no_flag_is_set_on_a_good_day_and_that_is_said(ranch: Provisioned, day: Database) -> None:
    *bits, chargers, inverters = flags(ranch)
    for query in bits:
        for one in day.ask(query.text):
            assert set(one["values"][0][1:]) == {0}
    assert [day.value(query.text) for query in (chargers, inverters)] == [1, 1]
    assert [chargers.name, inverters.name] == ["chargers: none", "inverters: none"]


def test_what_remains_is_known(ranch: Provisioned, day: Database) -> None:
    """No query escapes: those that no test above asks for its value are these, or alarms."""
    plain = [
        q for q in queries(ranch) if not any(kind.fullmatch(q.text) for kind in (LAST, MEAN, SUM, DAILY))
    ]
    rest = [q for q in plain if q.panel["type"] != "table" and q not in flags(ranch) and q.panel["id"] != 1]
    found = {q.name: day.value(q.text) for q in rest}
    assert found == {
        "in 10 min": 40,
        "slowed now": 0,
        "since start": 0,
        "free": pytest.approx(100 * 21.4 / 31.0),
        "last backup": None,  # another row has it
    }


def backup(ranch: Provisioned, at: Database) -> list[tuple[str, str, str]]:
    """What the home page says of the last backup: name, value and colour."""
    shown = []
    asked = [q for q in queries(ranch) if q.name == "last backup"]
    for query in asked:
        if (value := at.value(query.text)) is not None:
            word = {"text": f"{value:.0f} {query.properties['unit'].removeprefix('suffix: ')}", "color": ""}
            for mapping in query.properties.get("mappings", []):
                word = mapping["options"].get(f"{value:g}", word)
            shown.append((query.name, word["text"], word["color"]))
    return shown or [
        ("", asked[0].properties["noValue"], asked[0].properties["thresholds"]["steps"][0]["color"])
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (with_values("host", backups=1), ("last backup", "3 days ago", "")),
        (without_backup, ("last backup", "none yet", WORDS["colours"]["warning"])),
        (
            lambda one: None if one.measurement == "host" else one,
            ("", "last backup: no data", WORDS["colours"]["none"]),
        ),
    ],
)
def test_that_no_backup_was_made_is_said(
    change: Change, said: tuple[str, str, str], ranch: Provisioned, room: Room, tmp_path: Path
) -> None:
    with database(tmp_path, room.now, replace(room, change=change).points(hours=0.1, dense_s=300)) as at:
        assert backup(ranch, at) == [said]


def test_no_query_opens_what_is_older_than_its_time(
    ranch: Provisioned, points: list[Point], room: Room, tmp_path: Path
) -> None:
    """The database keeps each week in files of its own. However old it is, a glance opens those of its own time."""
    newest = [one for one in points if one.time > room.now - 120 or one.measurement == "daily_energy"]
    newest = [*newest, Point("host", {}, {"backups": 1}, room.now)]
    months = [replace(one, time=one.time - 30 * 86400 * back) for back in range(13) for one in newest]
    asked = {query.text for query in queries(ranch)}
    asked |= {rule["data"][0]["model"]["query"] for rule in ranch.rules}
    with database(tmp_path, room.now, months) as at:
        for text in asked:
            plan = [row["QUERY PLAN"] for row in rows(at.ask(f"EXPLAIN {text}", hours=30 * 24))]
            opened = [int(line.rpartition(" ")[2]) for line in plan if line.startswith("NUMBER OF SHARDS")]
            assert opened, text
            # the month before, and two where a week has just ended
            assert max(opened) <= 3, text


def test_an_empty_database_breaks_nothing(ranch: Provisioned, empty: Database) -> None:
    for query in queries(ranch):
        assert empty.ask(query.text) == []
