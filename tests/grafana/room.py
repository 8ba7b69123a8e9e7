"""A simulated day as the collector would have written it: the simulator's room, through the collector's own code.

The day ends now, and its local time is chosen: the site lies where it is that hour of the day at this moment.
"""

from __future__ import annotations

import tempfile
import time as clock
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta, timezone
from itertools import chain, count, takewhile
from pathlib import Path
from typing import Any

from power_collector.config import DeviceConfig, SiteConfig
from power_collector.contract import Point, point, present
from power_collector.devices.base import (
    ChargeControllerReading,
    InverterReading,
    OutbackReading,
    SystemReading,
)
from power_collector.points import Poll, build, inverters_read
from power_collector.simulator.day import Charger, Day, Inverter, Moment
from power_collector.site import Site

INTERVAL_S = 15
CYCLE_MS = {"outback": 41.0, "tristar-mppt-600v": 23.0}
Change = Callable[[Point], Point | None]
"""What a story makes of a point: another, or none."""


@dataclass(frozen=True)
class Room:
    """A room with its place and its story. `devices` are the inventory's."""

    devices: Sequence[Mapping[str, Any]]
    inverters: int = 3
    now: int = field(default_factory=lambda: int(clock.time()) // INTERVAL_S * INTERVAL_S)
    hour: float = 12.5
    """Local hour of the day at `now`, to the half hour before it."""
    silent: frozenset[str] = frozenset()
    """Devices that have not answered for the last `silent_s` seconds."""
    silent_s: int = 1800
    change: Change | None = None
    """Made of the points of the last 25 minutes."""
    seed: int = 1

    @property
    def offset_h(self) -> int:
        """Hours that the site is ahead of UTC."""
        return round((self.hour - self.now % 86400 / 3600 + 12) % 24) - 12

    @property
    def timezone(self) -> str:
        """The site's time zone; the names' signs are the other way round."""
        return f"Etc/GMT{-self.offset_h:+d}"

    def points(self, **history: float) -> list[Point]:
        """Return the points of the last hours, up to `now`; see `cycles`."""
        return [
            one
            for _, cycle in takewhile(lambda at: at[0] <= self.now, self.cycles(**history))
            for one in cycle
        ]

    def cycles(
        self, *, hours: float = 24, step_s: int = 60, dense_s: int = 1800, days: int = 0
    ) -> Iterator[tuple[int, list[Point]]]:
        """Yield time and points of each cycle without end: one each `step_s`, each interval from `now - dense_s` on.

        Of `days` before the hours only the days' energies.
        """
        day = Day(
            chargers=sum(1 for device in self.devices if device["driver"] != "outback"),
            inverters=self.inverters,
            seed=self.seed,
            zone=timezone(timedelta(hours=self.offset_h)),
        )
        begin = (self.now - int(hours * 3600)) // 60 * 60
        with tempfile.TemporaryDirectory() as folder:
            place = SiteConfig(latitude=35.0, longitude=15.0 * self.offset_h, timezone=self.timezone)
            site = Site(place, Path(folder))
            for time in range(begin - days * 86400, begin, 300):
                yield time, site.look(self._polls(day.at(time), time), time)[1]
            for time in chain(
                range(begin, self.now - dense_s, step_s), count(self.now - dense_s, INTERVAL_S)
            ):
                yield time, list(self._cycle(site, self._polls(day.at(time), time), time))

    def _cycle(self, site: Site, polls: Sequence[Poll], time: int) -> Iterator[Point]:
        surroundings, days = site.look(polls, time)
        points = [*build(polls, time, surroundings=surroundings), *days]
        points += present([self._status(polls, len(points) + 1, time), self._host(time)])
        for one in points:
            changed = self.change(one) if self.change and time > self.now - 1500 else one
            if changed is not None:
                yield changed

    def _polls(self, moment: Moment, time: int) -> list[Poll]:
        chargers = iter(moment.chargers)
        polls = []
        for table in self.devices:
            device = DeviceConfig(
                **table, **({"inverters": self.inverters} if table["driver"] == "outback" else {})
            )
            reading = _outback(moment) if device.driver == "outback" else _charger(moment, next(chargers))
            if device.name in self.silent and (silent_s := time - (self.now - self.silent_s)) > 0:
                polls.append(Poll(device, None, 2000.0, silent_s // 60 + 1, float(silent_s)))
            else:
                polls.append(Poll(device, reading, CYCLE_MS[device.driver] + time % 7, 0, 0.0))
        return polls

    def _status(self, polls: Sequence[Poll], points: int, time: int) -> Point | None:
        values = {
            "cycle_ms": max(poll.response_ms or 0.0 for poll in polls) + 4,
            "points": points,
            "stored_points": 0,
            "dropped_points": 0,
            "rejected_points": 0,
            "inverters_read": inverters_read(polls),
            "inverters_expected": self.inverters,
            "clock_source": 1,
            "clock_steps": 0,
            "replaced_points": 0,
            "memory_mb": 52.0,
            "uptime_s": float(time - self.now + 12 * 86400),
        }
        return point("collector_status", {}, values, time)

    def _host(self, time: int) -> Point | None:
        values = {
            "cpu_temperature_c": 48 + 4 * ((time // 600) % 3),
            "cpu_percent": 6.0 + time % 5,
            "memory_available_mb": 2900.0,
            "memory_total_mb": 4000.0,
            "disk_free_gb": 21.4,
            "disk_total_gb": 31.0,
            "disk_written_mb": 540.0,
            "uptime_s": float(time - self.now + 12 * 86400),
            "load_1m": 0.21,
            "undervoltage": 0,
            "throttled": 0,
            "backup_age_h": 75.0 + (time - self.now) / 3600,
        }
        return point("host", {}, values, time) if time % 60 == 0 else None


def _charger(moment: Moment, charger: Charger) -> ChargeControllerReading:
    return ChargeControllerReading({
        "battery_voltage_v": charger.battery_v, "target_voltage_v": charger.target_v,
        "array_voltage_v": charger.array_v, "battery_current_a": charger.battery_a, "array_current_a": charger.array_a,
        "output_power_w": charger.power_w, "input_power_w": charger.input_w,
        "heatsink_temperature_c": charger.heatsink_c, "battery_temperature_c": moment.battery_c,
        "charge_state": charger.state, "led_state": 6, "faults": 0, "alarms": 0,
        "today_kwh": charger.today_wh / 1000, "total_kwh": charger.total_wh / 1000,
    })  # fmt: skip


def _outback(moment: Moment) -> OutbackReading:
    inverters = tuple(
        InverterReading(port, _inverter(moment, one)) for port, one in enumerate(moment.inverters, start=1)
    )
    system = SystemReading(
        {"battery_temperature_c": moment.battery_c, "ambient_temperature_c": moment.ambient_c}, None
    )
    return OutbackReading(inverters, 30, 40, moment.battery_v, system if moment.time % 600 < 60 else None)


def _inverter(moment: Moment, one: Inverter) -> dict[str, float | int | None]:
    amperes = {
        f"l{line}_{name}_current_a": round(watts / 2 / 120)
        for line in (1, 2)
        for name, watts in (("output", one.output_w), ("charge", one.charge_w), ("buy", one.buy_w))
    }
    energies = {
        f"l{line}_{name}_today_kwh": round(wh / 2000, 1)
        for line in (1, 2)
        for name, wh in (
            ("output", one.output_today_wh),
            ("generator_buy", one.buy_today_wh),
            ("grid_buy", 0.0),
        )
    }
    heats = {f"{side}_{part}_temperature_c": one.temperature_c + 3 * (part == "transformer")
             for side in ("left", "right") for part in ("transformer", "capacitor", "fet")}  # fmt: skip
    return {
        **amperes, **energies, **heats,
        "mode": 3 if moment.generator else 2, "errors": 0, "warnings": 0, "battery_voltage_v": moment.battery_v,
        "target_voltage_v": moment.target_v, "battery_temperature_c": moment.battery_c, "ac_input": 1,
        "ac_input_state": int(moment.generator), "charger_today_kwh": round(one.charge_today_wh / 1000, 1),
        "output_power_kw": round(one.output_w / 1000, 1), "buy_power_kw": round(one.buy_w / 1000, 1),
        "sell_power_kw": 0.0, "charge_power_kw": round(one.charge_w / 1000, 1),
        "load_power_kw": round(one.load_w / 1000, 1), "ac_coupled_power_kw": 0.0,
    }  # fmt: skip


def with_values(measurement: str, **values: float) -> Change:
    """Give a story that puts values into all points of a measurement."""

    def change(one: Point) -> Point:
        return replace(one, fields={**one.fields, **values}) if one.measurement == measurement else one

    return change


def without_backup(one: Point) -> Point:
    """Put a Pi into the story of which no backup was ever made."""
    if one.measurement != "host":
        return one
    fields = {name: value for name, value in one.fields.items() if name != "backup_age_h"}
    return replace(one, fields={**fields, "backups": 0})


def of_device(name: str, **values: float) -> Change:
    """Give a story that puts values into the points of one charger."""

    def change(one: Point) -> Point:
        mine = one.measurement == "charge_controller" and one.tags["device"] == name
        return replace(one, fields={**one.fields, **values}) if mine else one

    return change
