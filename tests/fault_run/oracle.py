"""What must be in the database: derived from the room's own log of answers, cycle by cycle."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any

from power_collector.config import Config, DeviceConfig
from power_collector.contract import MEASUREMENTS
from power_collector.devices import sunspec, tristar
from power_collector.devices.base import (
    ChargeControllerReading,
    InverterReading,
    OutbackReading,
    Reading,
    SystemReading,
)
from power_collector.points import Poll, build

from . import registers as by_hand
from .registers import Fields, Series

Entry = Mapping[str, Any]
Points = dict[Series, dict[str, Any]]

AC_MODELS, INVERTER_MODEL = (101, 102, 103), 64115
SYSTEM_FIRST, SYSTEM_COUNT = 392, 28
CLIENT_GONE = "the client has gone"
REFUSALS = ("exception", "busy")
_HEADER = 2
_LATE = 0.9
"""From this part of a time-out on, an answer may or may not have come in time."""


@dataclass(frozen=True)
class Expected:
    """One cycle. `points` holds all that must be written; an answer in the last moment allows several such sets.

    The values of `device_status` other than `up` and of `collector_status` are the collector's own: of these points
    only the series, and `up`, are here. `decoded` is what our own small decoder says.
    """

    points: tuple[Points, ...]
    decoded: Fields


@dataclass(frozen=True)
class _Asked:
    """What one poll of the outback device brought."""

    blocks: dict[int, list[int]]
    refused: frozenset[int]
    system: list[int] | None
    zone: int | None
    last: float
    system_last: float


def series(measurement: str, tags: Mapping[str, str]) -> Series:
    """Name a series."""
    return measurement, tuple(sorted(tags.items()))


def whole(entry: Entry) -> bool:
    """Say whether an answer with registers went out as it should."""
    return "registers" in entry and "fault" not in entry


class Oracle:
    """Judges by `config` and the log of answers."""

    def __init__(self, config: Config, answers: Sequence[Entry]) -> None:
        self.config = config
        self._by_cycle: dict[int, dict[str, list[Entry]]] = defaultdict(lambda: defaultdict(list))
        for entry in answers:
            # A slow device notes a client that has gone when it would answer, perhaps in a later cycle.
            if entry.get("fault") != CLIENT_GONE:
                self._by_cycle[self.cycle_of(entry["time"])][entry["device"]].append(entry)
        # Where the blocks of the outback device begin: the room's chain does not change.
        found = [
            e
            for e in answers
            if whole(e) and e["count"] > SYSTEM_COUNT and e["address"] >= sunspec.BASE_ADDRESS
        ]
        self._ac = {e["address"] for e in found if e["registers"][0] in AC_MODELS}
        self._inverters = {e["address"] for e in found if e["registers"][0] == INVERTER_MODEL}
        self._zones: dict[int, int | None] = {}
        self._note_zones(answers)

    @property
    def cycles(self) -> list[int]:
        """The times of the cycles in which any device was asked: those that certainly ran."""
        return sorted(self._by_cycle)

    def cycle_of(self, time: float) -> int:
        """Give the cycle to which a moment belongs: a poll ends before the next tick."""
        return int(time // self.config.interval_s) * self.config.interval_s

    def expected(self, cycle: int) -> Expected:
        """Give what a cycle must have written."""
        decoded: Fields = {}
        choices = []
        for device in self.config.devices:
            entries = self._by_cycle.get(cycle, {}).get(device.name, [])
            readings = (
                self._outback(device, entries, cycle)
                if not device.is_charger
                else _charger(device, entries, cycle)
            )
            choices.append(readings)
            if len(readings) == 1 and readings[0] is not None:
                decoded |= self._decoded(device, entries)
        sets = tuple(
            _points(self.config.devices, readings, cycle) for readings in itertools.product(*choices)
        )
        return Expected(sets, decoded)

    def _outback(self, device: DeviceConfig, entries: Sequence[Entry], cycle: int) -> list[Reading | None]:
        asked = self._asked(entries, cycle)
        blocks, wanted = asked.blocks, self._ac | self._inverters
        if not blocks or set(blocks) | asked.refused != wanted:
            return [None]
        reading = OutbackReading(tuple(_inverter(blocks[a]) for a in sorted(self._inverters) if a in blocks))
        for address in self._ac & set(blocks):
            model = sunspec.decode(blocks[address][0], blocks[address])
            reading = replace(
                reading,
                ac_current_raw=sunspec.raw(model, "A"),
                ac_power_raw=sunspec.raw(model, "W"),
                dc_voltage_v=sunspec.scaled(model, "DCV"),
            )
        late = cycle + _LATE * device.timeout_s
        full: Reading | None = reading
        if asked.system is not None:
            full = replace(reading, system=_system(asked.system, asked.zone))
        if asked.last > late:
            return [full, reading, None]
        return [full, reading] if asked.system_last > late else [full]

    def _asked(self, entries: Sequence[Entry], cycle: int) -> _Asked:
        blocks: dict[int, list[int]] = {}
        refused: set[int] = set()
        system, last, system_last = None, 0.0, 0.0
        for entry in entries:
            address, count = entry.get("address"), entry.get("count")
            if address in self._ac | self._inverters and count > _HEADER:
                last = entry["time"]
                if whole(entry):
                    blocks[address] = entry["registers"]
                elif entry.get("fault") in REFUSALS:
                    refused.add(address)
            elif count == SYSTEM_COUNT and whole(entry):
                system, system_last = entry["registers"], entry["time"]
        return _Asked(blocks, frozenset(refused), system, self._zones.get(cycle), last, system_last)

    def _note_zones(self, answers: Iterable[Entry]) -> None:
        """Note the time zone register that was read last, for each cycle: it is read with the chain, not each time."""
        zone: int | None = None
        for entry in answers:
            if entry.get("count") == 1 and entry.get("address", 0) >= sunspec.BASE_ADDRESS:
                if whole(entry):
                    (zone,) = entry["registers"]
                elif entry.get("fault") in REFUSALS:
                    zone = None
            self._zones[self.cycle_of(entry["time"])] = zone

    def _decoded(self, device: DeviceConfig, entries: Sequence[Entry]) -> Fields:
        if device.is_charger:
            (answer,) = (e["registers"] for e in entries if whole(e))
            half_floats = device.driver == "tristar-mppt-600v"
            return by_hand.charger(device.name, device.legacy_measurement, answer, half_floats=half_floats)
        blocks = {e["address"]: e["registers"] for e in entries if whole(e) and e["count"] > SYSTEM_COUNT}
        ac = [blocks[a] for a in self._ac if a in blocks]
        inverters = [blocks[a] for a in self._inverters if a in blocks]
        return by_hand.outback(device.name, ac[0] if ac else None, inverters, device.inverters or 0)


def _charger(device: DeviceConfig, entries: Sequence[Entry], cycle: int) -> list[Reading | None]:
    answers = [e for e in entries if whole(e)]
    if not answers:
        return [None]
    (answer,) = answers
    if device.driver == "tristar-mppt-600v":
        values = tristar.half_float_values(answer["registers"])
    else:
        values = tristar.scaled_values(answer["registers"], device.name)
    reading = ChargeControllerReading(values)
    return [reading, None] if answer["time"] > cycle + _LATE * device.timeout_s else [reading]


def _inverter(block: Sequence[int]) -> InverterReading:
    model = sunspec.decode(block[0], block)
    fields = (name for name in MEASUREMENTS["inverter"].fields if name in model.points)
    return InverterReading(block[2], {name: sunspec.scaled(model, name) for name in fields})


def _system(block: Sequence[int], zone: int | None) -> SystemReading:
    """Read the part of block 64110 that begins at offset 392: clock, temperatures, the zone's scale factor."""

    def signed(register: int) -> int:
        return register - 65536 if register & 0x8000 else register

    battery, ambient = (None if r == 0x8000 else signed(r) for r in block[6:8])
    clock = None
    if zone is not None:
        offset = timedelta(hours=signed(zone) * 10.0 ** signed(block[419 - SYSTEM_FIRST]))
        clock = datetime(*block[:6], tzinfo=timezone(offset))  # type: ignore[arg-type]
    return SystemReading({"battery_temperature_c": battery, "ambient_temperature_c": ambient}, clock)


def _points(devices: Sequence[DeviceConfig], readings: Sequence[Reading | None], cycle: int) -> Points:
    polls = [Poll(device, reading, None, 0, None) for device, reading in zip(devices, readings, strict=True)]
    points: Points = {series(p.measurement, p.tags): dict(p.fields) for p in build(polls, cycle)}
    for device, reading in zip(devices, readings, strict=True):
        status = series("device_status", {"device": device.name, "driver": device.driver})
        points[status] = {"up": int(reading is not None)}
    points[series("collector_status", {})] = {}
    return points
