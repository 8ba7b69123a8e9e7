"""Each alarm comes and goes once on a real Grafana, by data that provoke it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from power_collector.contract import Point
from tests.grafana.influxql import Database
from tests.grafana.provisioned import RANCH
from tests.grafana.room import Change, Room
from tests.vendor.servers import Server

from .servers import database, grafana

PATIENCE_S = 150
"""Rules are evaluated each 30 s; one of them waits a minute more."""

WRONG: dict[str, dict[str, float]] = {
    "power_room_totals": {"battery_voltage": 45.0},
    "inverter": {"errors": 4},
    "charge_controller": {"faults": 2},
    "host": {"undervoltage": 1, "disk_free_gb": 1.0},
    "collector_status": {"inverters_read": 2, "clock_source": 3},
}
HIGH: dict[str, dict[str, float]] = {"power_room_totals": {"battery_voltage": 64.0}}


def putting(values: dict[str, dict[str, float]]) -> Change:
    """Give a story that puts values into all points of some measurements."""
    return lambda one: replace(one, fields={**one.fields, **values.get(one.measurement, {})})


def everything_wrong(one: Point) -> Point | None:
    """Provoke all but the alarms of a high battery and of missing data."""
    changed = putting(WRONG)(one)
    assert changed is not None
    if changed.measurement == "device_status" and changed.tags["device"] == "sc6":
        return replace(changed, fields={**changed.fields, "up": 0})
    if changed.measurement == "collector_status":
        minute = changed.time // 60 % 10_000
        return replace(
            changed, fields={**changed.fields, "stored_points": 200 * minute, "dropped_points": minute}
        )
    return changed


ROUNDS: tuple[tuple[Change, set[str]], ...] = (
    (
        everything_wrong,
        {
            "Battery very low", "Battery low", "Inverter fault", "Charger fault", "Device silent",
            "Inverters missing", "Supply voltage of the Pi too low", "Disk nearly full", "Readings lost",
            "Backlog growing", "Clock unverified",
        },
    ),
    (putting(HIGH), {"Battery very high", "Battery high"}),
)  # fmt: skip


def firing(server: Server) -> set[str]:
    """Titles of the rules that fire, as anybody may read them."""
    answer: Any = server.ask("GET", "/api/prometheus/grafana/api/v1/rules").json()
    return {
        rule["name"]
        for group in answer["data"]["groups"]
        for rule in group["rules"]
        if rule["state"] == "firing"
    }


def wait(server: Server, wanted: set[str], feed: Callable[[], object]) -> set[str]:
    """Wait until exactly these fire, or the time is up; give what does."""
    end = time.monotonic() + PATIENCE_S
    while (found := firing(server)) != wanted and time.monotonic() < end:
        feed()
        time.sleep(2)
    return found


def points(change: Change | None, seconds: int = 3900) -> Iterable[Point]:
    """Readings up to this moment, with the story's in the last 25 minutes."""
    room = Room(RANCH["power_room_devices"], RANCH["power_room_inverters"], change=change, seed=3)
    return room.points(hours=seconds / 3600)


def run(home: Path) -> list[str]:
    """Provoke each alarm and mend it; give what did not come or go."""
    faults = []
    with ExitStack() as stack:
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(2)]
        into, influxdb = stack.enter_context(database(folders[0], 0, points(None)))
        server, _ = stack.enter_context(grafana(home, folders[1], influxdb))
        rounds: list[tuple[str, Change | None, set[str]]] = [("all is well", None, set())]
        for change, wanted in ROUNDS:
            rounds += [("provoked", change, wanted), ("mended", None, set())]
        for name, change, wanted in rounds:
            faults += told(name, wait(server, wanted, lambda change=change: feed(into, change)), wanted)
        # Nothing more is written, and after 2 minutes that is an alarm; what was known before is none.
        faults += told("the data end", wait(server, {"No fresh data"}, lambda: None), {"No fresh data"})
        faults += told("they come back", wait(server, set(), lambda: feed(into, None)), set())
    return faults


def feed(into: Database, change: Change | None) -> None:
    """Write the readings so far; those of the same time replace what was there."""
    into.write(points(change))


def told(name: str, found: set[str], wanted: set[str]) -> list[str]:
    """Print what fires."""
    print(f"alarms, {name}: {', '.join(sorted(found)) or 'none'}", flush=True)
    return [] if found == wanted else [f"alarms, {name}: {sorted(found)} instead of {sorted(wanted)}"]
