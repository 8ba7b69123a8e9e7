"""The simulated day: sun, clouds, loads, battery, chargers and inverters as a pure function of the time.

A 48 V lead-acid bank, solar chargers of 3 kW each and inverters of 8 kW that share the house. Powers balance:
what the chargers and the generator give and the inverters do not take goes into the battery.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import NamedTuple

STEP_S = 120
_WARM_UP_DAYS = 2  # the battery gets full on most days, which makes it forget where it began

_CHARGER_W = 3000.0
_LATITUDE = math.radians(35)
_SOLAR_NOON_S = 12.25 * 3600
_ABSORB_V, _FLOAT_V, _REBULK_V = 57.6, 54.0, 50.0
_ABSORB_S = 2 * 3600
_INVERTER_EFFICIENCY = 0.93
_INVERTER_IDLE_W = 30.0
_GENERATOR_CHARGE_W = 2500.0
_GENERATOR_START, _GENERATOR_STOP = 0.30, 0.60
_VMP_V, _VOC_V = 380.0, 460.0
_TOTAL_SINCE = datetime(2020, 1, 1, tzinfo=UTC).timestamp()
_TOTAL_WH_A_DAY = 9000.0

NIGHT, MPPT, ABSORPTION, FLOAT = 3, 5, 6, 7
"""Charge states as the TriStar numbers them."""


@dataclass(frozen=True, slots=True)
class Charger:
    """A solar charger. Powers in W, energy in Wh, charge in Ah; "today" began at dawn.

    `power_w` is `battery_v * battery_a`, `input_w` is `array_v * array_a`.
    """

    power_w: float
    battery_v: float
    battery_a: float
    array_v: float
    array_a: float
    input_w: float
    target_v: float
    state: int
    heatsink_c: float
    today_wh: float
    today_ah: float
    power_max_today_w: float
    battery_min_today_v: float
    battery_max_today_v: float
    array_max_today_v: float
    absorption_today_s: int
    float_today_s: int
    total_wh: float
    hours: int


@dataclass(frozen=True, slots=True)
class Inverter:
    """An inverter. Powers in W, energy in Wh; "today" began at midnight. load = output + buy - charge."""

    output_w: float
    load_w: float
    buy_w: float
    charge_w: float
    output_today_wh: float
    buy_today_wh: float
    charge_today_wh: float
    temperature_c: float


@dataclass(frozen=True, slots=True)
class Moment:
    """The whole room at one second. `battery_w` is positive while the battery is charged."""

    time: int
    local: datetime
    battery_v: float
    battery_w: float
    target_v: float
    soc: float
    generator: bool
    ambient_c: float
    battery_c: float
    chargers: Sequence[Charger]
    inverters: Sequence[Inverter]


class _State(NamedTuple):
    """What has gathered by one moment of the room; solar since dawn, the rest since midnight."""

    soc: float
    floating: bool
    generator: bool
    absorption_s: float = 0
    float_s: float = 0
    solar_wh: float = 0
    solar_ah: float = 0
    solar_max_w: float = 0
    battery_min_v: float = 99
    battery_max_v: float = 0
    output_wh: float = 0
    buy_wh: float = 0
    charge_wh: float = 0


class _Flow(NamedTuple):
    """The room's powers at one moment, in W."""

    battery_v: float
    battery_w: float
    target_v: float
    solar_w: float
    available_w: float
    load_w: float
    output_w: float
    buy_w: float
    charge_w: float
    state: int


@lru_cache(maxsize=65536)
def _random(seed: int, name: str, index: int) -> float:
    """Return 0..1, always the same for the same arguments (Python's own hash is salted)."""
    digest = hashlib.blake2b(f"{seed}/{name}/{index}".encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big") / 2**48


def _noise(seed: int, name: str, x: float) -> float:
    """Return 0..1, smooth in x, with a new value at each whole x."""
    index = math.floor(x)
    blend = (x - index) ** 2 * (3 - 2 * (x - index))
    return _random(seed, name, index) * (1 - blend) + _random(seed, name, index + 1) * blend


def _clamp(value: float, low: float = 0, high: float = 1) -> float:
    return min(max(value, low), high)


def _hump(hour: float, at: float, width: float) -> float:
    return math.exp(-(((hour - at) / width) ** 2))


class Day:
    """The room's weather, house and battery for `seed`, by the clock of `zone` (None: the host's zone)."""

    def __init__(self, *, chargers: int, inverters: int, seed: int = 1, zone: tzinfo | None = None) -> None:
        """Make a room of so many chargers and inverters (of neither is allowed)."""
        self._chargers = chargers
        self._inverters = inverters
        self._seed = seed
        self._zone = zone
        # A room with fewer chargers is a smaller home.
        self._size = _clamp(chargers / 6, 0.3, 1.2 * max(inverters, 1))
        self._capacity_wh = 100_000 * self._size
        self._days: dict[int, list[_State]] = {}
        self._last: Moment | None = None
        self._exercise: tuple[float, float] | None = None

    @property
    def exercise(self) -> tuple[float, float] | None:
        """The hours of each local day from and until which the generator runs whatever the battery has."""
        return self._exercise

    @exercise.setter
    def exercise(self, hours: tuple[float, float] | None) -> None:
        if hours != self._exercise:
            self._exercise, self._last = hours, None
            self._days.clear()

    def at(self, time: float) -> Moment:
        """Return the room at `time` (seconds since 1970), cut to the whole second."""
        second = int(time)
        if self._last is None or self._last.time != second:
            self._last = self._moment(second)
        return self._last

    def _local(self, time: float) -> datetime:
        return datetime.fromtimestamp(time, UTC).astimezone(self._zone)

    def _midnight(self, time: float) -> int:
        midnight = self._local(time).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=self._zone)
        return int(midnight.timestamp())

    def _elevation(self, since_midnight: float, day_of_year: int) -> float:
        """Return the sine of the sun's elevation."""
        declination = math.radians(-23.44) * math.cos(2 * math.pi * (day_of_year + 10) / 365.25)
        hour_angle = 2 * math.pi * (since_midnight - _SOLAR_NOON_S) / 86400
        return math.sin(_LATITUDE) * math.sin(declination) + math.cos(_LATITUDE) * math.cos(
            declination
        ) * math.cos(hour_angle)

    def _sun(self, time: float, midnight: int, day_of_year: int) -> float:
        """Return the arrays' share (0..1) of their greatest power, with the clouds that pass."""
        elevation = self._elevation(time - midnight, day_of_year)
        if elevation <= 0:
            return 0.0
        weather = _random(self._seed, "weather", midnight // 86400)
        cover = 0.05 if weather < 0.65 else 0.5 if weather < 0.9 else 0.9
        cloud = _clamp((_noise(self._seed, "cloud", time / 500) - 1 + cover) * 5)
        haze = 0.97 + 0.03 * _noise(self._seed, "haze", time / 20)
        return min(elevation / 0.8, 1.0) * (1 - 0.75 * cloud) * haze

    def _load(self, time: float, midnight: int) -> float:
        """Return the house's load in W: a base, meals, the evening, fridge, pump and kettle."""
        hour = (time - midnight) / 3600
        load = 650 + 1500 * _hump(hour, 7, 1.2) + 2400 * _hump(hour, 19.5, 2.0)
        load += 180 if time % 2400 < 900 else 0
        load += 1500 if 8 <= hour < 18 and _random(self._seed, "pump", int(time) // 900) < 0.12 else 0
        load += 1200 if 6 <= hour < 22 and _random(self._seed, "kettle", int(time) // 180) < 0.06 else 0
        return self._size * load * (0.92 + 0.16 * _noise(self._seed, "load", time / 40))

    def _flow(self, state: _State, time: float, midnight: int, day_of_year: int) -> _Flow:
        available = self._chargers * _CHARGER_W * self._sun(time, midnight, day_of_year)
        night = available <= 5 * self._chargers
        if night:
            available = 0.0
        load = self._load(time, midnight) if self._inverters else 0.0
        charge = self._inverters * _GENERATOR_CHARGE_W if state.generator else 0.0
        output, buy = (0.0, load + charge) if state.generator else (load, 0.0)
        drain = output / _INVERTER_EFFICIENCY + self._inverters * _INVERTER_IDLE_W
        # The battery: a source behind a resistance that rises steeply while a nearly full bank is charged.
        rest_v = 47.0 + 4.0 * state.soc
        solar = available
        battery_w = solar + charge - drain
        ohm = 0.008
        if battery_w > 0:
            ohm += 0.12 * _clamp((state.soc - 0.7) / 0.3) ** 2
        ohm /= self._size
        volts = (rest_v + math.sqrt(max(rest_v**2 + 4 * ohm * battery_w, 0))) / 2
        target = _FLOAT_V if state.floating else _ABSORB_V
        regulated = volts > target
        if regulated:
            volts = target
            solar = _clamp(volts * (volts - rest_v) / ohm + drain - charge, 0, available)
            battery_w = solar + charge - drain
        if night:
            stage = NIGHT
        elif state.floating:
            stage = FLOAT
        else:
            stage = ABSORPTION if regulated else MPPT
        return _Flow(volts, battery_w, target, solar, available, load, output, buy, charge, stage)

    def _step(self, state: _State, time: int, midnight: int, day_of_year: int) -> _State:
        """Return the state one step later."""
        flow = self._flow(state, time, midnight, day_of_year)
        hours = STEP_S / 3600
        stored = flow.battery_w * hours * (0.92 if flow.battery_w > 0 else 1.0)
        soc = _clamp(state.soc + stored / self._capacity_wh, 0.05, 1.0)
        generator = soc < (_GENERATOR_STOP if state.generator else _GENERATOR_START) and self._inverters > 0
        now = time - midnight
        if self._exercise is not None and self._inverters > 0:
            begin, end = self._exercise
            generator |= begin <= (now + STEP_S) / 3600 < end
        # Before dawn, so that it is over when the first power comes.
        dawn = (
            self._elevation(now, day_of_year) <= -0.01 < self._elevation(now + STEP_S, day_of_year)
            and now < _SOLAR_NOON_S
        )
        output, buy, charge = (
            getattr(state, f"{name}_wh") + getattr(flow, f"{name}_w") * hours
            for name in ("output", "buy", "charge")
        )
        if dawn:
            return _State(soc, False, generator, output_wh=output, buy_wh=buy, charge_wh=charge)
        absorption_s = state.absorption_s + STEP_S * (flow.state == ABSORPTION)
        return _State(
            soc,
            (state.floating or absorption_s >= _ABSORB_S)
            and not (flow.battery_v < _REBULK_V and flow.state == FLOAT),
            generator,
            absorption_s,
            state.float_s + STEP_S * (flow.state == FLOAT),
            state.solar_wh + flow.solar_w * hours,
            state.solar_ah + flow.solar_w / flow.battery_v * hours,
            max(state.solar_max_w, flow.solar_w),
            min(state.battery_min_v, flow.battery_v),
            max(state.battery_max_v, flow.battery_v),
            output,
            buy,
            charge,
        )

    def _states(self, midnight: int) -> list[_State]:
        """Return the day's states, one a step, of the day that begins at `midnight`."""
        if midnight not in self._days:
            begins = [midnight]
            for _ in range(_WARM_UP_DAYS):
                begins.insert(0, self._midnight(begins[0] - 43200))
            state = _State(0.75, False, False)
            states: list[_State] = []
            # Days of 23 and 25 hours exist; the last of the list is taken to 25 hours.
            for begin, end in zip(begins, [*begins[1:], midnight + 25 * 3600 + 2 * STEP_S], strict=True):
                day_of_year = self._local(begin).timetuple().tm_yday
                state = state._replace(output_wh=0.0, buy_wh=0.0, charge_wh=0.0)
                states = []
                for time in range(begin, end, STEP_S):
                    states.append(state)
                    state = self._step(state, time, begin, day_of_year)
            while len(self._days) >= 3:
                del self._days[next(iter(self._days))]
            self._days[midnight] = states
        return self._days[midnight]

    def _moment(self, time: int) -> Moment:
        midnight = self._midnight(time)
        states = self._states(midnight)
        index, rest = divmod(time - midnight, STEP_S)
        before, after = states[index], states[index + 1]

        def between(name: str) -> float:
            low, high = float(getattr(before, name)), float(getattr(after, name))
            # Charge goes both ways; a counter that has fallen was reset at the end of the step.
            return low if high < low and name != "soc" else low + (high - low) * rest / STEP_S

        local = self._local(time)
        soc = between("soc")
        flow = self._flow(before._replace(soc=soc), time, midnight, local.timetuple().tm_yday)
        hour = (time - midnight) / 3600
        ambient = 17 - 8 * math.cos(2 * math.pi * (hour - 3) / 24)
        gathered = {
            name: between(name)
            for name in (
                "solar_wh",
                "solar_ah",
                "absorption_s",
                "float_s",
                "output_wh",
                "buy_wh",
                "charge_wh",
            )
        }
        shares = self._shares("charger", self._chargers, 0.25)
        chargers = [self._charger(share, flow, before, gathered, ambient, time) for share in shares]
        inverters = [
            Inverter(
                output_w=flow.output_w * share,
                load_w=flow.load_w * share,
                buy_w=flow.buy_w * share,
                charge_w=flow.charge_w * share,
                output_today_wh=gathered["output_wh"] * share,
                buy_today_wh=gathered["buy_wh"] * share,
                charge_today_wh=gathered["charge_wh"] * share,
                temperature_c=ambient + 8 + (flow.output_w + flow.charge_w) * share / 150,
            )
            for share in self._shares("inverter", self._inverters, 0.20)
        ]
        return Moment(
            time=time,
            local=local,
            battery_v=flow.battery_v,
            battery_w=flow.battery_w,
            target_v=flow.target_v,
            soc=soc,
            generator=before.generator,
            ambient_c=ambient,
            battery_c=20 + (ambient - 17) / 4,
            chargers=chargers,
            inverters=inverters,
        )

    def _shares(self, name: str, count: int, spread: float) -> list[float]:
        """Return each one's share of the whole: nearly equal, and constant, so that energies add up."""
        weights = [1 + spread * (_random(self._seed, name, i) - 0.5) for i in range(count)]
        return [weight / sum(weights) for weight in weights]

    def _charger(
        self,
        share: float,
        flow: _Flow,
        state: _State,
        gathered: dict[str, float],
        ambient: float,
        time: int,
    ) -> Charger:
        power = flow.solar_w * share
        idle = 1 - flow.solar_w / flow.available_w if flow.available_w else 0.0
        array_v = _VMP_V + (_VOC_V - _VMP_V) * idle if flow.state != NIGHT else 2.0
        # A lifetime's counters grow evenly: to add up all days since then would take too long.
        days = (time - _TOTAL_SINCE) / 86400
        return Charger(
            power_w=power,
            battery_v=flow.battery_v,
            battery_a=power / flow.battery_v,
            array_v=array_v,
            array_a=power / 0.97 / array_v,
            input_w=power / 0.97,
            target_v=flow.target_v,
            state=flow.state,
            heatsink_c=ambient + 3 + power / 100,
            today_wh=gathered["solar_wh"] * share,
            today_ah=gathered["solar_ah"] * share,
            power_max_today_w=max(state.solar_max_w, flow.solar_w) * share,
            battery_min_today_v=min(state.battery_min_v, flow.battery_v),
            battery_max_today_v=max(state.battery_max_v, flow.battery_v),
            array_max_today_v=_VOC_V,
            absorption_today_s=int(gathered["absorption_s"]),
            float_today_s=int(gathered["float_s"]),
            total_wh=days * _TOTAL_WH_A_DAY,
            hours=int(days * 24),
        )
