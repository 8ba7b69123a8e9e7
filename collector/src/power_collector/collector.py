"""The loop: at each aligned tick all devices at once, their points to the writer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import psutil

from power_collector import latest
from power_collector.batch import Cycle, Dating, Undated
from power_collector.clock import Clock
from power_collector.clock_mark import ClockMark
from power_collector.config import Config, DeviceConfig
from power_collector.contract import ClockSource, Point, point, present
from power_collector.devices.base import Device, OutbackReading
from power_collector.host import Host
from power_collector.points import Poll, Surroundings, build, inverters_read
from power_collector.poller import Poller
from power_collector.site import Site
from power_collector.ticks import Ticks
from power_collector.time_source import TimeSource
from power_collector.writer import Counters

STOP_CYCLE_S = 3.0
"""How long a cycle that is under way may go on after the stop."""

logger = logging.getLogger(__name__)


class Sink(Protocol):
    """Takes the cycles."""

    @property
    def counters(self) -> Counters:
        """What waits and what was lost."""
        ...

    def put(self, cycle: Cycle) -> None:
        """Take a cycle's points; does not wait for anything."""
        ...

    def date(self, dating: Dating) -> None:
        """Give the undated cycles so far their times; does not wait for anything."""
        ...


class Collector:
    """All devices, cycle after cycle."""

    def __init__(
        self,
        config: Config,
        devices: Sequence[tuple[DeviceConfig, Device]],
        sink: Sink,
        *,
        clock: Clock,
        time_source: TimeSource | None = None,
        site: Site | None = None,
        host: Host | None = None,
        runtime_directory: Path | None = None,
        notify: Callable[[str], object] = lambda state: None,
    ) -> None:
        """Prepare; `notify` tells the service manager ("READY=1", "WATCHDOG=1", "STOPPING=1").

        Without a `time_source` it has one that remembers nothing of an earlier run. Without `site` and `host`
        nothing is said of sun, day and monitor.
        """
        self._interval_s = config.interval_s
        self._pollers = [
            Poller(device_config, device, config.interval_s, clock) for device_config, device in devices
        ]
        self._expected_inverters = sum(device_config.inverters or 0 for device_config, _ in devices)
        self._sink = sink
        self._clock = clock
        self._time = time_source or TimeSource(clock)
        self._site = site
        self._host = host
        self._started = clock.monotonic()
        self._process = psutil.Process()
        self._ticks = Ticks(config.interval_s)
        self._dating: Dating | None = None
        self._replaced_points = 0
        self._runtime_directory = runtime_directory
        self._clock_mark = ClockMark(runtime_directory, clock) if runtime_directory else None
        self._notify = notify
        self._cycle: asyncio.Task[None] | None = None
        self._told_missing = False
        self._told_latest = False

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set; a cycle that is under way then has 3 s to end.

        Raises:
            Exception: whatever ended the loop; it has no fault that it survives.
        """
        loop = asyncio.create_task(self._loop())
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({loop, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not loop.done():
                self._notify("STOPPING=1")
                if self._cycle is not None:
                    await asyncio.wait({self._cycle}, timeout=STOP_CYCLE_S)
        finally:
            stopped.cancel()
            if not loop.done():
                loop.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await loop

    async def _loop(self) -> None:
        self._notify("READY=1")
        while True:
            await self._clock.sleep(self._ticks.wait_s(self._clock.monotonic() + self._time.offset))
            self._cycle = asyncio.create_task(self.cycle())
            try:
                await self._cycle
            finally:
                self._cycle.cancel()
                self._cycle = None
            self._notify("WATCHDOG=1")

    async def cycle(self) -> None:
        """Poll all devices at once and hand over the points, which carry the time of the cycle's begin."""
        begin = self._clock.monotonic()
        polls = await asyncio.gather(*(poller.poll() for poller in self._pollers))
        cycle_ms = (self._clock.monotonic() - begin) * 1000
        self._look_at_clocks(polls)
        known = self._time.source != ClockSource.NONE_YET
        time = self._ticks.stamp(begin, self._time.offset)
        again = known and self._ticks.used(time)
        trusted = self._time.source in (ClockSource.SYNCHRONISED, ClockSource.MATE3S)
        surroundings, days = Surroundings(), list[Point]()
        if self._site is not None and trusted:
            surroundings, days = self._site.look(polls, time)
        points = build(polls, time, time_known=known, surroundings=surroundings) + days
        if self._host is not None:
            points += present([self._host.look(begin, time, trusted=trusted)])
        if again:
            self._replaced_points += len(points) + 1
        points += present([self._status(polls, cycle_ms, len(points) + 1, time)])
        undated = None if known else Undated(self._clock.boot_id, self._time.offset)
        self._sink.put(Cycle(time, tuple(p.to_line() for p in points), undated, again or bool(days)))
        self._tell_missing(polls)
        self._write_latest(polls, points, time)

    def _look_at_clocks(self, polls: Sequence[Poll]) -> None:
        for poll in polls:
            if isinstance(poll.reading, OutbackReading):
                system = poll.reading.system
                if system is not None and system.clock is not None:
                    self._time.hear(system.clock.timestamp(), system.moment)
        before = self._time.offset
        self._time.look()
        if self._clock_mark is not None:
            self._clock_mark.look(self._time)
        if self._time.source == ClockSource.NONE_YET:
            return
        dating = Dating(self._clock.boot_id, self._time.offset, self._time.source, self._interval_s)
        if self._dating is None:
            self._ticks.shift(dating.shift_s(before), dating.offset)
        elif self._dating.source == dating.source and not dating.shift_s(self._dating.offset):
            return
        self._dating = dating
        self._sink.date(dating)

    def _status(self, polls: Sequence[Poll], cycle_ms: float, points: int, time: int) -> Point | None:
        counters = self._sink.counters
        values = {
            "cycle_ms": cycle_ms,
            "points": points,
            "stored_points": counters.stored_points,
            "dropped_points": counters.dropped_points,
            "rejected_points": counters.rejected_points,
            "inverters_read": inverters_read(polls),
            "inverters_expected": self._expected_inverters,
            "clock_source": self._time.source,
            "memory_mb": self._process.memory_info().rss / 1e6,
            "uptime_s": self._clock.monotonic() - self._started,
            "clock_steps": self._ticks.steps_back,
            "replaced_points": self._replaced_points,
        }
        return point("collector_status", {}, values, time)

    def _tell_missing(self, polls: Sequence[Poll]) -> None:
        """Say once that inverters are missing while the device answers, and once that they are back."""
        for poll in polls:
            if poll.reading is None or poll.device.inverters is None:
                continue
            read = inverters_read([poll])
            if read < poll.device.inverters and not self._told_missing:
                logger.warning(
                    "%s: only %d of %d inverters; look at the hub's cables and the inverters' displays,"
                    " or mend `inverters` in the configuration",
                    poll.device.name,
                    read,
                    poll.device.inverters,
                )
            elif read >= poll.device.inverters and self._told_missing:
                logger.info("%s: all %d inverters again", poll.device.name, poll.device.inverters)
            self._told_missing = read < poll.device.inverters

    def _write_latest(self, polls: Sequence[Poll], points: Sequence[Point], time: int) -> None:
        if self._runtime_directory is None:
            return
        try:
            latest.write(
                self._runtime_directory,
                time=time,
                interval_s=self._interval_s,
                points=points,
                polls=[(poll, poller.error) for poll, poller in zip(polls, self._pollers, strict=True)],
                counters=self._sink.counters,
                clock=self._clock_table(),
            )
        except OSError as error:
            # It is only for looking at; the points are on their way.
            logger.log(
                logging.DEBUG if self._told_latest else logging.WARNING,
                "%s cannot be written: %s",
                latest.NAME,
                error,
            )
            self._told_latest = True

    def _clock_table(self) -> dict[str, float | int | None]:
        now = self._clock.monotonic() + self._time.offset
        return {
            "time": None if self._time.source == ClockSource.NONE_YET else now,
            "system_time": self._clock.wall(),
            "source": self._time.source,
            "offset_s": self._time.box_offset_s,
            "steps": self._ticks.steps_back,
            "replaced_points": self._replaced_points,
        }
