"""How long the dashboards' queries take against a month of every reading and a year of daily energy."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from power_collector.contract import Point
from tests.grafana.provisioned import RANCH
from tests.grafana.room import INTERVAL_S, Room

from .measure import measure
from .servers import database, grafana

DAY_S = 86400
MONTH_DAYS, YEAR_DAYS = 30, 365


def points(room: Room) -> Iterator[Point]:
    """Yield one whole day again and again, day by day further back."""
    day = room.points(hours=24, step_s=INTERVAL_S)
    for back in range(MONTH_DAYS):
        yield from (replace(one, time=one.time - back * DAY_S) for one in day)
    energies = [one for one in day if one.measurement == "daily_energy"]
    last = {(one.tags["device"], one.time): one for one in energies}
    for back in range(MONTH_DAYS, YEAR_DAYS):
        yield from (replace(one, time=one.time - back * DAY_S) for one in last.values())


def run(home: Path) -> None:
    """Fill a database, run Grafana on it, and print what its queries take."""
    with ExitStack() as stack:
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(2)]
        room = Room(RANCH["power_room_devices"], RANCH["power_room_inverters"], seed=3)
        into, influxdb = stack.enter_context(database(folders[0], room.now, points(room)))
        server, made = stack.enter_context(
            grafana(home, folders[1], influxdb, power_room_timezone=room.timezone)
        )
        into.write(room.points(hours=0.25, step_s=INTERVAL_S))
        measure(server, made)
