"""A day without the database: 5,760 cycles through the collector's own writer, into its store.

The cycles are read from the simulated room at 240 moments of a day; the clock is ours, so that the day takes
a few seconds. Each commit is waited for as ever.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from power_collector import devices
from power_collector.backlog import Backlog
from power_collector.batch import Cycle, Dating
from power_collector.collector import Collector
from power_collector.config import Config, StoreConfig
from power_collector.influx import TIMEOUT_S, Answer
from power_collector.line_protocol import parse
from power_collector.simulator import SimulatedRoom
from power_collector.writer import Counters, Writer

from .database import Key

INTERVAL_S = 15
DAY_CYCLES = 24 * 3600 // INTERVAL_S
_BEGIN = time.monotonic()
_MOMENTS = 240
_SELDOM = 600 // INTERVAL_S
"""The hub's own clock and temperatures come in one of so many cycles."""


@dataclass
class _Clock:
    """A clock that is set."""

    now: float
    boot_id: str = "bench"

    def wall(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def synchronised(self) -> bool:
        return True

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


class _RoomClock(_Clock):
    """Set from moment to moment, but running on in between: the times that are measured are real ones."""

    def monotonic(self) -> float:
        return self.now + (time.monotonic() - _BEGIN)


@dataclass
class _Kept:
    """A sink that keeps the cycles."""

    cycles: list[Cycle] = field(default_factory=list)
    counters: Counters = field(default_factory=Counters)

    def put(self, cycle: Cycle) -> None:
        self.cycles.append(cycle)

    def date(self, dating: Dating) -> None:
        """Nothing: the clock is right from the beginning."""


class _Away:
    """A database that cannot be reached."""

    def write(self, lines: Sequence[str], *, timeout_s: float = TIMEOUT_S) -> Answer:
        return Answer(None, "away")


@dataclass(frozen=True, slots=True)
class Day:
    """The cycles of the outage, oldest first."""

    cycles: list[Cycle]

    @property
    def points(self) -> dict[Key, dict[str, float]]:
        """Every point with its fields."""
        known: dict[str, tuple[str, tuple[tuple[str, str], ...], dict[str, float]]] = {}
        points: dict[Key, dict[str, float]] = {}
        for cycle in self.cycles:
            for line in cycle.lines:
                text = line.rpartition(" ")[0]
                if text not in known:
                    point = parse(line)
                    known[text] = point.measurement, tuple(sorted(point.tags.items())), dict(point.fields)
                measurement, tags, fields = known[text]
                points[measurement, tags, cycle.time] = fields
        return points


def cycles_of_a_day(config: Config) -> Day:
    """Read the room at the moments of a day, and make of them the day that ended a minute ago."""
    end = int(time.time()) // INTERVAL_S * INTERVAL_S - 60
    begin = end - DAY_CYCLES * INTERVAL_S
    samples = asyncio.run(_read(config, begin))
    cycles = []
    for number in range(DAY_CYCLES):
        moment = begin + number * INTERVAL_S
        lines = [
            f"{line.rpartition(' ')[0]} {moment}"
            for line in samples[number % _MOMENTS].lines
            if number % _SELDOM == 0 or not line.startswith("outback_system")
        ]
        cycles.append(Cycle(moment, tuple(lines)))
    return Day(cycles)


async def _read(config: Config, begin: int) -> list[Cycle]:
    clock, kept = _RoomClock(begin), _Kept()
    async with SimulatedRoom(config, ephemeral=True, now=clock.wall) as room:
        pairs = [(device, devices.make(device, clock.monotonic)) for device in room.config.devices]
        collector = Collector(config, pairs, kept, clock=clock)
        for number in range(_MOMENTS):
            clock.now = begin + number * 24 * 3600 / _MOMENTS
            await collector.cycle()
    return kept.cycles


def store(day: Day, config: StoreConfig) -> int:
    """Bring the day into the store, as the writer does while the database is away; return points dropped."""
    clock = _Clock(day.cycles[0].time)
    writer = Writer(Backlog(config, clock), _Away(), clock)
    for cycle in day.cycles:
        clock.now = cycle.time
        writer.put(cycle)
        while (left := cycle.time + INTERVAL_S - clock.now) > 0:
            clock.now += min(writer.step(), left)
    writer.finish(clock.now)
    return writer.counters.dropped_points
