"""Readings of one cycle -> the points of the data contract."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from power_collector.config import DeviceConfig
from power_collector.contract import Point, point, present
from power_collector.devices.base import (
    ChargeControllerReading,
    OutbackReading,
    Reading,
    Values,
)


@dataclass(frozen=True, slots=True)
class Poll:
    """What one cycle knows of one device. `reading` is None where the poll failed or was put off.

    `response_ms` is None where the device was not asked; `age_s` (seconds since the last good reading) is
    None before the first.
    """

    device: DeviceConfig
    reading: Reading | None
    response_ms: float | None
    failures: int
    age_s: float | None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What place and time of day add to a cycle; None and nothing where they are not known.

    `sun_works`: whether the sun is high enough for chargers. `totals`: further fields of `power_room_totals`.
    """

    sun_works: bool | None = None
    totals: Values = field(default_factory=dict)


def inverters_read(polls: Iterable[Poll]) -> int:
    """Return how many inverters the polls brought."""
    return sum(len(poll.reading.inverters) for poll in polls if isinstance(poll.reading, OutbackReading))


def build(
    polls: Sequence[Poll],
    time: int,
    *,
    time_known: bool = True,
    surroundings: Surroundings = Surroundings(),
) -> list[Point]:
    """Return the points of all devices of one cycle, with the cycle's `time` (seconds since 1970).

    While the time is not known, nothing is said of another clock's.
    """
    points: list[Point | None] = []
    for poll in polls:
        if isinstance(poll.reading, OutbackReading):
            points += _outback(poll.device, poll.reading, time, time_known)
        elif isinstance(poll.reading, ChargeControllerReading):
            points.append(point("charge_controller", {"device": poll.device.name}, poll.reading.values, time))
        points.append(_status(poll, surroundings.sun_works, time))
    points.append(point("power_room_totals", {}, {**totals(polls), **surroundings.totals}, time))
    points += _chargers([poll for poll in polls if poll.device.is_charger], time)
    return present(points)


def _status(poll: Poll, sun_works: bool | None, time: int) -> Point | None:
    return point(
        "device_status",
        {"device": poll.device.name, "driver": poll.device.driver},
        {
            "up": int(poll.reading is not None),
            "expected": sun_works if poll.device.is_charger else 1,
            "response_ms": poll.response_ms,
            "failures": poll.failures,
            "age_s": poll.age_s,
        },
        time,
    )


def _outback(
    device: DeviceConfig, reading: OutbackReading, time: int, time_known: bool
) -> list[Point | None]:
    tags = {"device": device.name}
    points = [
        point(
            "mate3s",
            {},
            {
                "Inverter Current": reading.ac_current_raw,
                "Power Usage": reading.ac_power_raw,
                "Battery Voltage": reading.dc_voltage_v,
            },
            time,
        ),
        *(
            point("inverter", {**tags, "port": str(inverter.port)}, inverter.values, time)
            for inverter in reading.inverters
        ),
    ]
    if reading.system is not None:
        clock = reading.system.clock if time_known else None
        offset = None if clock is None else clock.timestamp() - time
        values = {**reading.system.values, "clock_offset_s": offset}
        points.append(point("outback_system", tags, values, time))
    return points


def totals(polls: Iterable[Poll]) -> dict[str, float | None]:
    """Return what the polls tell of the room as a whole, fields of `power_room_totals`."""
    polls = list(polls)
    for poll in polls:
        if isinstance(poll.reading, OutbackReading):
            return _totals(poll.device, poll.reading, _solar_kw(polls))
    return {}


def _totals(device: DeviceConfig, reading: OutbackReading, solar_kw: float | None) -> dict[str, float | None]:
    inverters = reading.inverters
    complete = device.inverters is not None and len(inverters) >= device.inverters

    def total(*fields: str) -> float | None:
        return _sum((inverter.values for inverter in inverters), fields) if complete else None

    output, charge = total("output_power_kw"), total("charge_power_kw")
    sell = total("sell_power_kw")
    battery = None
    if solar_kw is not None and output is not None and charge is not None:
        battery = round(solar_kw + charge - output - (sell or 0.0), 3)
    inputs = [
        dict(zip(("generator", "grid"), input_powers(inverter.values), strict=True)) for inverter in inverters
    ]
    return {
        "total_output_current": total("l1_output_current_a", "l2_output_current_a"),
        "total_charge_current": total("l1_charge_current_a", "l2_charge_current_a"),
        "total_output_power_kw": output,
        "total_charge_power_kw": charge,
        "total_load_power_kw": total("load_power_kw"),
        "battery_voltage": _battery_voltage(reading),
        "battery_power_kw": battery,
        "generator_power_kw": _sum(inputs, ("generator",)) if complete else None,
        "grid_power_kw": _sum(inputs, ("grid",)) if complete else None,
    }


def input_powers(inverter: Values) -> tuple[float | None, float | None]:
    """Return what an inverter takes at its generator input and at its grid input, in kW; sold is negative.

    It has one of them selected, and a power says nothing of which.
    """
    bought, selected = inverter.get("buy_power_kw"), inverter.get("ac_input")
    if bought is None:
        return None, None
    power = bought - (inverter.get("sell_power_kw") or 0.0)
    if power == 0:
        return 0.0, 0.0
    match selected:
        case 0:
            return 0.0, power
        case 1:
            return max(power, 0.0), 0.0
    return None, None


def _solar_kw(polls: Sequence[Poll]) -> float | None:
    """Return the power of the chargers that were read; 0 in a room without, None where none was read."""
    if not any(poll.device.is_charger for poll in polls):
        return 0.0
    powers = [kw for poll in polls if (kw := _power_kw(poll)) is not None]
    return sum(powers) if powers else None


def _power_kw(poll: Poll) -> float | None:
    """Return what a charger gives; None where it was not read or has no finite value."""
    if not isinstance(poll.reading, ChargeControllerReading):
        return None
    watts = poll.reading.values.get("output_power_w")
    return None if watts is None or not math.isfinite(watts) else watts / 1000


def _sum(inverters: Iterable[Values], fields: Sequence[str]) -> float | None:
    """Sum the fields over the inverters; None where an inverter lacks its first field.

    A single-phase inverter has no L2: only the first field must be there.
    """
    total = 0.0
    for inverter in inverters:
        values = [inverter.get(field) for field in fields]
        if values[0] is None:
            return None
        total += sum(value for value in values if value is not None)
    # Whole amperes and tenths of kW: rounding removes only the noise of binary addition.
    return round(total, 3) if math.isfinite(total) else None


def _battery_voltage(reading: OutbackReading) -> float | None:
    if reading.dc_voltage_v is not None:
        return reading.dc_voltage_v
    voltages = [
        v for inverter in reading.inverters if (v := inverter.values.get("battery_voltage_v")) is not None
    ]
    return statistics.median(voltages) if voltages else None


def _chargers(polls: Sequence[Poll], time: int) -> list[Point | None]:
    if not polls:
        return []
    points: list[Point | None] = []
    powers: list[float] = []
    for poll in polls:
        power = _power_kw(poll)
        if power is None:
            continue
        powers.append(power)
        if poll.device.legacy_measurement is not None:
            points.append(point(poll.device.legacy_measurement, {}, {"power_kw": power}, time))
    total = max(sum(powers), 0.0)
    if len(powers) == len(polls):
        # The old program wrote 0 below 10 W, and the old dashboard's history has it so.
        points.append(point("solar_charger_total", {}, {"power_kw": 0.0 if total < 0.010 else total}, time))
    points.append(
        point(
            "solar_charger_partial",
            {},
            {"power_kw": total, "read": len(powers), "expected": len(polls)},
            time,
        )
    )
    return points
