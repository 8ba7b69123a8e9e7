"""Energy of the site's local day, of counters that begin their day when they want, or integrated.

The MATE3s's counters begin their day at its own midnight, a TriStar's at dawn. A counter is therefore not
the day's energy: what it grows from one reading to the next is added up, and a fall to nearly nothing is the
begin of its day. What a counter has not told yet (or never tells) is integrated from the power.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from power_collector.config import DeviceConfig
from power_collector.contract import MEASUREMENTS, Point, point, present
from power_collector.devices.base import ChargeControllerReading, InverterReading, OutbackReading, Values
from power_collector.points import Poll, input_powers

EVERY_S = 300
"""How often a day's points are written anew."""
COUNTER_GAP_S = 7200
"""Between two readings of a counter; after a longer one it is taken as if seen for the first time."""
POWER_GAP_S = 300
"""Between two readings of a power; nothing is integrated over a longer one."""
_MOST_KW = 20.0
"""No counter of a home grows faster: one that does had been misread."""
_STEP_KWH = 1.0
"""So much it may grow at once all the same: some are brought up to date only now and then."""
_CHARGING = 5
"""TriStar charge states from here on (MPPT, absorption, float, ...) come after dawn."""
_NOON_S = 12 * 3600
_MIDNIGHT_S = 2 * 3600
"""So far from midnight a MATE3s without daylight saving time has begun its own day at the latest."""


@dataclass(slots=True)
class Energy:
    """One energy, in kWh: `total` is the day's by the counter, `since` what was integrated after that.

    The rest is what the next reading is compared with; times in seconds since 1970.
    """

    total: float = 0.0
    since: float = 0.0
    known: bool = False
    counter: float | None = None
    counter_time: float | None = None
    power: float | None = None
    power_time: float | None = None

    @property
    def kwh(self) -> float:
        """Return the day's energy so far, without the noise of binary addition."""
        return round(self.total + self.since, 4)

    def add(
        self, time: float, counter: float | None, power: float | None, *, counts_today: bool = False
    ) -> None:
        """Take a reading of the counter (kWh), of the power (kW), or of both.

        `counts_today`: a counter seen for the first time has counted from the begin of this day.
        """
        if power is not None:
            gap = math.inf if self.power_time is None else time - self.power_time
            if self.power is not None and 0 < gap <= POWER_GAP_S:
                self.since += (self.power + power) / 2 * gap / 3600
                self.known = True
            self.power, self.power_time = power, time
        if counter is not None:
            self._count(time, counter, counter if counts_today else 0.0)
            self.known = True
            self.counter, self.counter_time, self.since = counter, time, 0.0

    def _count(self, time: float, counter: float, today: float) -> None:
        gap = math.inf if self.counter_time is None else time - self.counter_time
        if self.counter is None or not -COUNTER_GAP_S <= gap <= COUNTER_GAP_S:
            self.total = max(self.total + self.since, today)
            return
        most = _STEP_KWH + _MOST_KW * max(gap, 0) / 3600
        grown = counter - self.counter
        # Its day begins; a counter that falls a little is rounded in another way.
        grown = counter if counter < self.counter / 2 and counter <= most else grown
        self.total += grown if 0 <= grown <= most else self.since

    def begin_day(self) -> None:
        """Forget the day's energy; the next reading is still compared with the last one."""
        self.total = self.since = 0.0
        self.known = False


_Parts = dict[str, Energy]
"""Of one device, by name: "solar", "charge", "discharge", and of each inverter's port "1/output", ..."""


class DailyEnergy:
    """The energies of all devices. Times are seconds since 1970 and have to be trusted ones."""

    def __init__(self, zone: ZoneInfo) -> None:
        self._zone = zone
        self._begin = self._end = 0
        self._devices: dict[str, _Parts] = {}
        self._due: float = -math.inf
        self._own = False
        """Whether this run has seen the day, and not only an earlier one that was restored."""

    def look(self, polls: Sequence[Poll], time: int, battery_kw: float | None) -> list[Point]:
        """Take a cycle's readings, and the power into the battery; return the days' points that are due."""
        points = self._begin_day(time, polls)
        for poll in polls:
            parts = self._devices.setdefault(poll.device.name, {})
            if isinstance(poll.reading, ChargeControllerReading):
                self._charger(parts, poll.reading.values, time)
            elif isinstance(poll.reading, OutbackReading):
                for inverter in poll.reading.inverters:
                    self._inverter(parts, inverter, time)
                if battery_kw is not None:
                    _part(parts, "charge").add(time, None, max(battery_kw, 0.0))
                    _part(parts, "discharge").add(time, None, max(-battery_kw, 0.0))
        self._own = True
        if not self._due - EVERY_S <= time < self._due:
            self._due = time + EVERY_S
            points += self._points(polls)
        return points

    def today(self, polls: Iterable[Poll]) -> Values:
        """Return today's energies, fields of `power_room_totals`: only of devices that go on to answer.

        A charger that is silent counts with what it gave before, as long as another one answers.
        """
        values: dict[str, float | None] = {}
        solar: list[float] = []
        answered = False
        for poll in polls:
            day = self._day(poll.device)
            if poll.device.is_charger:
                answered = answered or poll.reading is not None
                solar += [kwh for kwh in day.values() if kwh is not None]
            elif poll.reading is not None:
                values |= {field: day.get(name) for field, name in _TODAY.items()}
        if answered and solar:
            values["solar_today_kwh"] = round(sum(solar), 4)
        return values

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs."""
        return {
            "begin": self._begin,
            "devices": {
                name: {part: asdict(energy) for part, energy in parts.items()}
                for name, parts in self._devices.items()
            },
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where an earlier run was.

        Raises:
            AttributeError: `state` is not what `state()` returned; nothing is changed.
            KeyError: likewise.
            TypeError: likewise.
            ValueError: likewise.
        """
        devices = {
            str(name): {str(part): Energy(**_numbers(table)) for part, table in parts.items()}
            for name, parts in state["devices"].items()
        }
        self._set_day(int(state["begin"]))
        self._devices = devices

    def _begin_day(self, time: int, polls: Sequence[Poll]) -> list[Point]:
        """Where another day has begun, return the points of the last one: their last values."""
        if self._begin - _MIDNIGHT_S <= time < self._end:
            # Also a clock that was set back over midnight: the day before does not begin once more.
            return []
        points = self._points(polls) if self._own else []
        for parts in self._devices.values():
            for energy in parts.values():
                energy.begin_day()
        self._set_day(time)
        self._due = -math.inf
        return points

    def _set_day(self, time: int) -> None:
        now = datetime.fromtimestamp(time, UTC).astimezone(self._zone)
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
        self._begin = int(midnight.timestamp())
        # By the clock on the wall: days of 23 and 25 hours exist.
        self._end = int((midnight + timedelta(days=1)).timestamp())

    def _charger(self, parts: _Parts, values: Values, time: int) -> None:
        values = _within_contract("charge_controller", values)
        watts, state = values.get("output_power_w"), values.get("charge_state")
        # Before dawn its counter still has yesterday's.
        dawn_was = time - self._begin >= _NOON_S or (state is not None and state >= _CHARGING)
        _part(parts, "solar").add(
            time,
            values.get("today_kwh"),
            None if watts is None else max(watts, 0.0) / 1000,
            counts_today=dawn_was,
        )

    def _inverter(self, parts: _Parts, inverter: InverterReading, time: int) -> None:
        values = _within_contract("inverter", inverter.values)
        generator, grid = input_powers(values)
        today = time - self._begin >= _MIDNIGHT_S
        for name, counter, power in (
            ("output", _lines(values, "output"), values.get("output_power_kw")),
            ("generator", _lines(values, "generator_buy"), generator),
            ("grid", _lines(values, "grid_buy"), None if grid is None else max(grid, 0.0)),
            ("charger", values.get("charger_today_kwh"), values.get("charge_power_kw")),
        ):
            _part(parts, f"{inverter.port}/{name}").add(time, counter, power, counts_today=today)

    def _points(self, polls: Iterable[Poll]) -> list[Point]:
        return present(
            point("daily_energy", {"device": poll.device.name}, self._day(poll.device), self._begin)
            for poll in polls
        )

    def _day(self, device: DeviceConfig) -> dict[str, float | None]:
        """Return the day's energies of a device so far, fields of `daily_energy`."""
        parts = self._devices.get(device.name, {})

        def of(name: str) -> float | None:
            energy = parts.get(name)
            return energy.kwh if energy is not None and energy.known else None

        if device.is_charger:
            return {"solar_kwh": of("solar")}

        def of_all(name: str) -> float | None:
            found = [energy.kwh for part, energy in parts.items() if part.endswith(name) and energy.known]
            return round(sum(found), 4) if len(found) >= (device.inverters or 1) else None

        output, generator, grid, charger = (
            of_all(f"/{name}") for name in ("output", "generator", "grid", "charger")
        )
        load = None
        if output is not None and generator is not None and grid is not None and charger is not None:
            load = round(max(output + generator + grid - charger, 0.0), 4)
        return {
            "load_kwh": load,
            "generator_kwh": generator,
            "grid_kwh": grid,
            "charge_kwh": of("charge"),
            "discharge_kwh": of("discharge"),
        }


_TODAY = {
    "load_today_kwh": "load_kwh",
    "generator_today_kwh": "generator_kwh",
    "grid_today_kwh": "grid_kwh",
    "battery_in_today_kwh": "charge_kwh",
    "battery_out_today_kwh": "discharge_kwh",
}
_NAMES = tuple(field.name for field in fields(Energy))


_NEEDED = {
    "charge_controller": ("today_kwh", "output_power_w", "charge_state"),
    "inverter": (
        *(f"l{line}_{name}_today_kwh" for line in (1, 2) for name in ("output", "generator_buy", "grid_buy")),
        "charger_today_kwh",
        "output_power_kw",
        "charge_power_kw",
        "buy_power_kw",
        "sell_power_kw",
        "ac_input",
    ),
}


def _part(parts: _Parts, name: str) -> Energy:
    """Return the named energy, made where it is new."""
    energy = parts.get(name)
    if energy is None:
        energy = parts[name] = Energy()
    return energy


def _within_contract(measurement: str, values: Values) -> Values:
    """Return the values that are needed here, without those that are no value or a wild one."""
    contract = MEASUREMENTS[measurement].fields
    return {
        name: contract[name].cast(value)
        for name in _NEEDED[measurement]
        if (value := values.get(name)) is not None
    }


def _lines(values: Values, name: str) -> float | None:
    """Return the sum of both lines' counters; a single-phase inverter has no L2."""
    first = values.get(f"l1_{name}_today_kwh")
    return None if first is None else first + (values.get(f"l2_{name}_today_kwh") or 0.0)


def _numbers(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return an energy's state, whose values are numbers, or None where that is allowed.

    Raises:
        KeyError: a value is missing.
        TypeError: a value is no number.
    """
    values = {name: table[name] for name in _NAMES}
    return {
        name: value if value is None or isinstance(value, bool) else float(value)
        for name, value in values.items()
    }
