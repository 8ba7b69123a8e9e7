"""One run of the service: it starts after a day's outage, drains, goes on for minutes, a device falls silent.

Requests, times, CPU, memory and bytes written are all of this one process, with 20 ms an answer, a cycle each
second and the points going to the database.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.vendor.servers import Server

from . import outage, raw, site
from .database import ORG, Database, Key, points
from .disk import disk
from .promises import Promise

INTERVAL_S = 1
SILENT = "sc3"
_SILENT_S = 40
_DAY_S = 86400
_MB = 1e6


@dataclass(frozen=True, slots=True)
class _Written:
    """Bytes written so far, by the process's account and by the device's (None: there is none)."""

    process: int
    device: int | None

    def since(self, before: _Written) -> _Written:
        device = None if self.device is None or before.device is None else self.device - before.device
        return _Written(self.process - before.process, device)


def measure(folder: Path, runtime: Path, minutes: float) -> Iterator[Promise]:
    """Measure; `runtime` is a folder in memory."""
    with ExitStack() as stack:
        drive = stack.enter_context(disk(folder))
        database = Database.make(folder / "database")
        path = folder / "config.toml"
        config = site.write_configuration(
            path,
            store=drive.folder / "store.sqlite",
            interval_s=INTERVAL_S,
            influxdb=site.influxdb_table(database.url, ORG, database.token_file),
        )

        day = outage.cycles_of_a_day(config)
        before = _Written(site.written_bytes(os.getpid()), drive.written_bytes())
        dropped = outage.store(day, config.store)
        away = _Written(site.written_bytes(os.getpid()), drive.written_bytes()).since(before)

        room = stack.enter_context(site.room(config, path))
        service = stack.enter_context(site.service(path, runtime))

        def written() -> _Written:
            device = drive.written_bytes()
            return _Written(service.written_bytes(), device)

        before = written()
        site.wait_until("the first cycle", lambda: service.latest() is not None, 20)
        server = stack.enter_context(database.running())
        count = sum(len(cycle.lines) for cycle in day.cycles)
        drained_s = site.wait_until(
            "the backlog is drained", lambda: (service.waiting_points() or 0) < 100, 300, 0.1
        )
        drain = written().since(before)
        yield from _drained(day, server, drained_s, count, dropped)

        steady = _steady(server, service, room, config.devices[0].port, minutes, written)
        yield from steady.promises()
        yield from _one_silent(server, room)
        yield Promise(
            "peak memory (VmHWM), the drain included",
            service.peak_mib(),
            64,
            "MiB",
            f"after {minutes:g} min and {_SILENT_S} s more; promised after 10 min: BENCH_MINUTES=10",
        )
        yield from _wear(steady, away, drain, drive.why_not)


def _drained(day: outage.Day, server: Server, seconds: float, count: int, dropped: int) -> Iterator[Promise]:
    expected = day.points
    begin, end = day.cycles[0].time, day.cycles[-1].time
    found: dict[Key, dict[str, float]] = {}
    for name in {key[0] for key in expected}:
        found |= points(server, name, begin, end)
    lost = sum(found.get(key) != fields for key, fields in expected.items())
    cycles = len(day.cycles)
    yield Promise(
        "24 h outage: points lost",
        lost,
        0,
        note=f"{cycles} cycles, {count} points, read back from the database: "
        f"the same series, time and fields; {dropped} dropped",
    )
    yield Promise(
        "24 h outage: drained in",
        seconds,
        60,
        "s",
        "from the moment the database is ready; after a long outage up to 30 s of back-off come first",
    )


@dataclass(frozen=True, slots=True)
class _Steady:
    """What the steady minutes gave."""

    minutes: float
    seconds: float
    cycles: int
    first_requests: int
    requests: Counter[str]
    bound_ms: list[float]
    cycle_ms: list[float]
    cpu_ms: float
    written: _Written

    def promises(self) -> Iterator[Promise]:
        """Judge requests, times and CPU."""
        hub = self.requests[site.HUB] / self.cycles
        # One more every 10 minutes: the hub's clock and temperatures.
        allowed = 4 + math.ceil(self.minutes / 10) / self.cycles if self.minutes >= 10 else 4
        chargers = sum(n for device, n in self.requests.items() if device != site.HUB) / self.cycles
        said = f"{self.cycles} cycles in {self.minutes:g} min"
        yield Promise("requests a cycle: MATE3s", hub, allowed, note=said)
        yield Promise(f"requests a cycle: {site.CHARGERS} TriStars", chargers, site.CHARGERS)
        yield Promise("requests of the first cycle: MATE3s", self.first_requests, 25)
        bound = statistics.median(self.bound_ms)
        median, p95 = statistics.median(self.cycle_ms), _p95(self.cycle_ms)
        yield Promise(
            "lower bound, 20 ms an answer",
            bound,
            None,
            "ms",
            f"median of {len(self.bound_ms)} raw socket reads of the hub between the cycles; "
            f"their own 95th percentile {_p95(self.bound_ms):.1f} ms",
        )
        yield Promise("cycle, median / lower bound", median / bound, 1.1, note=f"{median:.1f} ms")
        yield Promise("cycle, 95th percentile / lower bound", p95 / bound, 1.5, note=f"{p95:.1f} ms")
        yield Promise("cycle, 95th percentile", p95, 110, "ms")
        yield Promise(
            "CPU a cycle of 7 devices",
            self.cpu_ms,
            8,
            "ms",
            f"{self.cycles} cycles, all threads, writes to the database and latest.json included",
        )


def _steady(
    server: Server,
    service: site.Service,
    room: site.Room,
    port: int,
    minutes: float,
    written: Callable[[], _Written],
) -> _Steady:
    begin = _asleep_until(math.ceil(time.time()) + 1.6)
    answers = _answers(room)
    first_second = int(answers[0]["time"])
    first = sum(a["device"] == site.HUB and int(a["time"]) == first_second for a in answers)
    last = [a for a in answers if a["device"] == site.HUB and a["function"] != raw.FUNCTION][-4:]
    requests = [(a["address"], a["count"]) for a in last]
    start_written, start_cpu = written(), service.cpu_s()
    bound = []
    moment = begin
    while moment < begin + minutes * 60:
        bound.append(raw.read_ms(port, requests))
        moment = _asleep_until(moment + 1)
    cpu = service.cpu_s() - start_cpu
    wrote = written().since(start_written)
    # The last cycle's points are in the database by now: they were sent half a second ago.
    status = points(server, "collector_status", math.ceil(begin), int(moment))
    asked = Counter(
        a["device"] for a in _answers(room) if a["function"] != raw.FUNCTION and begin <= a["time"] < moment
    )
    return _Steady(
        minutes=minutes,
        seconds=moment - begin,
        cycles=len(status),
        first_requests=first,
        requests=asked,
        bound_ms=bound,
        cycle_ms=[fields["cycle_ms"] for fields in status.values()],
        cpu_ms=cpu * 1000 / len(status),
        written=wrote,
    )


def _one_silent(server: Server, room: site.Room) -> Iterator[Promise]:
    """Compare the other devices' times in the cycles that wait for the silent one with those before."""
    begin = math.ceil(time.time())
    _asleep_until(begin + _SILENT_S)
    healthy = points(server, "device_status", begin, begin + _SILENT_S - 2)
    room.behave(**{SILENT: {"fault": "silent"}})
    begin = math.ceil(time.time()) + 1
    _asleep_until(begin + _SILENT_S + site.TIMEOUT_S)
    room.behave()
    found = points(server, "device_status", begin, begin + _SILENT_S - 2)
    waited = {
        key[2]
        for key, fields in found.items()
        if dict(key[1])["device"] == SILENT and not fields["up"] and "response_ms" in fields
    }
    others = {k: f for k, f in found.items() if dict(k[1])["device"] != SILENT and k[2] in waited}
    ratios = []
    for device in sorted({dict(key[1])["device"] for key in others}):
        times = [
            statistics.median(
                f.get("response_ms", math.inf) for k, f in which.items() if ("device", device) in k[1]
            )
            for which in (others, healthy)
        ]
        ratios.append(times[0] / times[1])
    status = points(server, "collector_status", begin, begin + _SILENT_S - 2)
    longest = max(fields["cycle_ms"] for key, fields in status.items() if key[2] in waited)
    yield Promise(
        "one device silent: points of the others missing",
        len(waited) * site.CHARGERS - sum(fields["up"] for fields in others.values()),
        0,
        note=f"in the {len(waited)} cycles that waited for it",
    )
    yield Promise(
        "one device silent: answer times of the others / before",
        max(ratios),
        1.2,
        note="the worst of six medians",
    )
    yield Promise(
        "one device silent: the cycle ends after",
        longest / 1000,
        site.TIMEOUT_S + 0.1,
        "s",
        f"its time-out is {site.TIMEOUT_S:g} s",
    )


def _wear(steady: _Steady, away: _Written, drain: _Written, why_not: str) -> Iterator[Promise]:
    hours = steady.seconds / 3600
    for what, attribute, note in (
        ("/proc/PID/io", "process", ""),
        ("block device", "device", "an ext4 on a loop device, its journal included"),
    ):
        there, gone, drained = (getattr(wrote, attribute) for wrote in (steady.written, away, drain))
        if there is None:
            yield Promise(f"bytes written ({what})", None, 0, note=why_not)
            continue
        name = f"written, database there ({what})"
        yield Promise(name, there / hours, 0, "B an hour", note)
        away_note = f"{gone / 24 / _MB:.2f} MB an hour; one row a minute"
        yield Promise(f"written, database away ({what})", gone / _MB, 30, "MB a day", away_note)
        name = f"written, a day away and the drain ({what})"
        yield Promise(name, (gone + drained) / _MB, 45, "MB", f"the drain {drained / _MB:.1f} MB")


def _answers(room: site.Room) -> list[dict[str, Any]]:
    return [json.loads(line) for line in room.answers.read_text().splitlines()]


def _asleep_until(moment: float) -> float:
    """Sleep until a moment of the wall clock (or not, where it has passed), and return it."""
    time.sleep(max(moment - time.time(), 0))
    return moment


def _p95(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.95)]
