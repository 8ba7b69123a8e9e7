"""A whole ranch in a time of its own: simulated room, drivers over real sockets, collector, what it wrote."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from power_collector import devices
from power_collector.batch import Cycle, Dating
from power_collector.collector import Collector
from power_collector.config import Config, DeviceConfig
from power_collector.contract import Point
from power_collector.line_protocol import parse
from power_collector.simulator import SimulatedRoom
from power_collector.ticks import aligned
from power_collector.writer import Counters

ZONE = ZoneInfo("America/Los_Angeles")
NOON = datetime(2026, 6, 24, 12, tzinfo=ZONE).timestamp()
TIMEOUT_S = 2.0
QUIET_S = 0.05
"""So long the sockets must be silent, in real time, before the loop's time jumps."""


class _Selector(selectors.DefaultSelector):
    jump: Callable[[float], None]

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            return super().select(0)
        events = super().select(QUIET_S if timeout is not None else 20)
        if not events:
            assert timeout is not None, "everything waits for something that will never happen"
            self.jump(timeout)
        return events


class JumpingLoop(asyncio.SelectorEventLoop):
    """Its time stands still while anything happens, and jumps to the next timer when nothing does.

    So nothing runs into a time-out but what really gets no answer, and that takes no time.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        selector = _Selector()
        super().__init__(selector)
        selector.jump = self.jump

    def time(self) -> float:
        return self.now

    def jump(self, seconds: float) -> None:
        assert seconds >= 0, "time does not go back"
        self.now += seconds


class LoopClock:
    """A Clock that begins at noon and goes with a JumpingLoop."""

    def __init__(self, loop: JumpingLoop) -> None:
        self._loop = loop
        self._begin = loop.time()

    def wall(self) -> float:
        return NOON + self.monotonic() - self._begin

    def monotonic(self) -> float:
        return self._loop.time()

    boot_id = "this-boot"

    def synchronised(self) -> bool:
        return True

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass
class Sink:
    """Keeps the cycles."""

    counters: Counters = field(default_factory=Counters)
    cycles: list[Cycle] = field(default_factory=list)

    def put(self, cycle: Cycle) -> None:
        self.cycles.append(cycle)

    def date(self, dating: Dating) -> None:
        assert all(cycle.undated is None for cycle in self.cycles), "its clock is right from the beginning"


class Written:
    """What one cycle wrote."""

    def __init__(self, cycle: Cycle) -> None:
        self.time = cycle.time
        self.points = [parse(line) for line in cycle.lines]

    def of(self, measurement: str, device: str | None = None) -> list[Point]:
        return [
            p for p in self.points if p.measurement == measurement and device in (None, p.tags.get("device"))
        ]

    def one(self, measurement: str, device: str | None = None) -> Point:
        (point,) = self.of(measurement, device)
        return point

    def status(self, device: str) -> dict[str, int | float]:
        return dict(self.one("device_status", device).fields)

    def lines(self, measurements: Iterable[str], device: str) -> list[str]:
        """What belongs to a device: points with its tag, and the `measurements`, which have none.

        But the battery's power, which chargers and inverters make together.
        """
        return sorted(
            replace(p, fields={k: v for k, v in p.fields.items() if k != "battery_power_kw"}).to_line()
            for p in self.points
            if p.tags.get("device") == device or p.measurement in set(measurements)
        )


class Ranch:
    """A simulated room and the collector that reads it."""

    def __init__(
        self, config: Config, room: SimulatedRoom, loop: JumpingLoop, clock: LoopClock, **options: Any
    ) -> None:
        self.config = config
        self.room = room
        self.clock = clock
        self.sink = Sink()
        self.loop = loop
        self.collector = Collector(
            config,
            [(device, devices.make(device, clock.monotonic)) for device in config.devices],
            self.sink,
            clock=clock,
            **options,
        )
        self._tick = int(clock.wall())

    def pause(self, seconds: float) -> None:
        """Let time pass without cycles."""
        self._tick = aligned(self.clock.wall() + seconds, self.config.interval_s)

    async def cycles(self, count: int) -> list[Written]:
        """Run the next cycles, each at its tick."""
        first = len(self.sink.cycles)
        for _ in range(count):
            self._tick += self.config.interval_s
            self.loop.jump(self._tick - self.clock.wall())
            await self.collector.cycle()
        return [Written(cycle) for cycle in self.sink.cycles[first:]]


Open = Callable[..., AbstractAsyncContextManager[Ranch]]


@pytest.fixture
def ranch_devices() -> list[DeviceConfig]:
    def charger(name: str, driver: str, **more: object) -> DeviceConfig:
        values = {"name": name, "driver": driver, "host": "127.0.0.1", "timeout_s": TIMEOUT_S, **more}
        return DeviceConfig.model_validate(values)

    return [
        charger("mate3s", "outback", port=1, inverters=3),
        charger("sc1", "tristar-mppt-600v", port=2, legacy_measurement="solar_charger_1"),
        charger("sc2", "tristar-mppt-600v", port=3, legacy_measurement="solar_charger_2"),
        charger("sc3", "tristar-mppt", port=4),
    ]


@pytest.fixture
def ranch(ranch_devices: list[DeviceConfig]) -> Open:
    """Open a ranch. `room_devices`: what the room really has, where it is not what the collector thinks.

    `options` are the collector's.
    """

    @asynccontextmanager
    async def opened(
        ours: list[DeviceConfig] = ranch_devices,
        *,
        room_devices: list[DeviceConfig] | None = None,
        interval_s: int = 15,
        **options: Any,
    ) -> AsyncIterator[Ranch]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, JumpingLoop)
        clock = LoopClock(loop)
        there = Config(devices=room_devices or ours, interval_s=interval_s)
        async with SimulatedRoom(there, bind="127.0.0.1", ephemeral=True, zone=ZONE, now=clock.wall) as room:
            ports = {device.name: device.port for device in room.config.devices}
            known = [d.model_copy(update={"port": ports.get(d.name, d.port)}) for d in ours]
            yield Ranch(Config(devices=known, interval_s=interval_s), room, loop, clock, **options)
        assert room.violations == []

    return opened


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run this folder's tests in a time that jumps."""
    return {"jumping": JumpingLoop}
