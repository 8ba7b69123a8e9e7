"""The data contract: every measurement, tag and field that may be written, with type, unit and range.

Field types never change, since InfluxDB fixes a field's type by its first point. Measured values are
float; enumerations, bit fields and counters are int. The first measurements keep the old program's names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum

FieldType = type[int] | type[float]


class ClockSource(IntEnum):
    """By whose word the points' times are right: `collector_status.clock_source`."""

    NONE_YET = 0
    SYNCHRONISED = 1
    MATE3S = 2
    UNVERIFIED = 3


@dataclass(frozen=True, slots=True)
class Field:
    """A field: its type, its unit and the range (inclusive) outside which a value is left out."""

    type: FieldType
    unit: str
    minimum: float
    maximum: float
    description: str

    def cast(self, value: float | None) -> int | float | None:
        """Return the value in the field's type, or None where it is absent, not finite or out of range."""
        if value is None or not math.isfinite(value) or not self.minimum <= value <= self.maximum:
            return None
        return self.type(value)


@dataclass(frozen=True, slots=True)
class Measurement:
    """A measurement: the tags that each of its points carries, and the fields that it may carry."""

    description: str
    tags: tuple[str, ...]
    fields: Mapping[str, Field]


def _float(unit: str, minimum: float, maximum: float, description: str) -> Field:
    return Field(float, unit, minimum, maximum, description)


def _int(minimum: int, maximum: int, description: str, unit: str = "") -> Field:
    return Field(int, unit, minimum, maximum, description)


def _battery_voltage(description: str) -> Field:
    return _float("V", 0, 150, description)


def _temperature(description: str) -> Field:
    return _float("°C", -60, 200, description)


def _line_current(description: str) -> Field:
    return _float("A", -1000, 1000, description)


def _ac_voltage(description: str) -> Field:
    return _float("V", 0, 1000, description)


def _power_kw(description: str) -> Field:
    return _float("kW", 0, 100, description)


def _energy_kwh(description: str) -> Field:
    return _float("kWh", 0, 6554, description)


def _day_kwh(description: str) -> Field:
    return _float("kWh", 0, 100_000, description)


def _amount(unit: str, description: str) -> Field:
    return _float(unit, 0, 1e12, description)


def _line(line: str) -> dict[str, Field]:
    name = line.upper()
    return {
        f"{line}_output_current_a": _line_current(f"{name} current out of the inverter"),
        f"{line}_charge_current_a": _line_current(f"{name} AC current into the charger"),
        f"{line}_buy_current_a": _line_current(f"{name} current bought from the AC input"),
        f"{line}_sell_current_a": _line_current(f"{name} current sold to the AC input"),
        f"{line}_grid_voltage_v": _ac_voltage(f"{name} voltage at the grid input"),
        f"{line}_generator_voltage_v": _ac_voltage(f"{name} voltage at the generator input"),
        f"{line}_output_voltage_v": _ac_voltage(f"{name} voltage at the output"),
        f"{line}_grid_buy_today_kwh": _energy_kwh(f"{name} energy bought at the grid input today"),
        f"{line}_generator_buy_today_kwh": _energy_kwh(f"{name} energy taken at the generator input today"),
        f"{line}_grid_sell_today_kwh": _energy_kwh(f"{name} energy sold at the grid input today"),
        f"{line}_generator_sell_today_kwh": _energy_kwh(f"{name} energy sold at the generator input today"),
        f"{line}_output_today_kwh": _energy_kwh(f"{name} energy out of the inverter today"),
    }


_INVERTER = {
    **_line("l1"),
    **_line("l2"),
    "mode": _int(0, 65534, "operating mode, the vendor's number (2 inverting, 3 charging, ...)"),
    "errors": _int(0, 65535, "error flags, the vendor's bits"),
    "warnings": _int(0, 65535, "warning flags, the vendor's bits"),
    "battery_voltage_v": _battery_voltage("battery voltage at this inverter, in steps of 0.4 V"),
    "target_voltage_v": _battery_voltage("charger's target, temperature compensated"),
    "left_transformer_temperature_c": _temperature("left module, transformer"),
    "left_capacitor_temperature_c": _temperature("left module, capacitor"),
    "left_fet_temperature_c": _temperature("left module, FETs"),
    "right_transformer_temperature_c": _temperature("right module, transformer"),
    "right_capacitor_temperature_c": _temperature("right module, capacitor"),
    "right_fet_temperature_c": _temperature("right module, FETs"),
    "battery_temperature_c": _temperature("battery sensor at this inverter"),
    "ac_input": _int(0, 65534, "selected AC input: 0 grid, 1 generator"),
    "ac_input_state": _int(0, 65534, "AC input: 0 dropped, 1 in use"),
    "ac_input_frequency_hz": _float("Hz", 0, 100, "frequency at the AC input"),
    "ac_input_voltage_v": _ac_voltage("voltage at the AC input"),
    "charger_today_kwh": _energy_kwh("energy into the battery by the charger today"),
    "output_power_kw": _power_kw("power out of the inverter"),
    "buy_power_kw": _power_kw("power bought at the AC input"),
    "sell_power_kw": _power_kw("power sold at the AC input"),
    "charge_power_kw": _power_kw("power into the battery by the charger"),
    "load_power_kw": _power_kw("power that the loads take"),
    "ac_coupled_power_kw": _power_kw("power from AC coupled sources"),
}

_CHARGE_CONTROLLER = {
    "battery_voltage_v": _battery_voltage("battery voltage used for regulation"),
    "battery_terminal_voltage_v": _battery_voltage("voltage at the battery terminals"),
    "battery_sense_voltage_v": _battery_voltage("voltage at the sense wires"),
    "target_voltage_v": _battery_voltage("regulation target"),
    "array_voltage_v": _float("V", 0, 700, "voltage of the solar array"),
    "battery_current_a": _float("A", -100, 200, "current into the battery"),
    "array_current_a": _float("A", -100, 200, "current from the array"),
    "output_power_w": _float("W", -100, 10_000, "power into the battery (register 58)"),
    "input_power_w": _float("W", -100, 10_000, "power from the array; may have a significant error"),
    "heatsink_temperature_c": _temperature("heat sink"),
    "battery_temperature_c": _temperature("battery, by the remote sensor where there is one"),
    "remote_temperature_c": _temperature("remote temperature sensor"),
    "charge_state": _int(0, 65535, "charge state, the vendor's number (3 night, 5 MPPT, 6 absorption, ...)"),
    "led_state": _int(0, 65535, "LED state, the vendor's number"),
    "faults": _int(0, 2**32 - 1, "fault flags, the vendor's bits"),
    "alarms": _int(0, 2**32 - 1, "alarm flags, the vendor's bits"),
    "hourmeter_h": _int(0, 2**32 - 1, "hours of operation", "h"),
    "total_kwh": _float("kWh", 0, 70_000, "energy charged since the controller was made"),
    "today_kwh": _float("kWh", 0, 100, "energy charged today; the day begins at dawn"),
    "today_ah": _float("Ah", 0, 10_000, "charge today; the day begins at dawn"),
    "battery_voltage_min_today_v": _battery_voltage("lowest battery voltage today"),
    "battery_voltage_max_today_v": _battery_voltage("highest battery voltage today"),
    "array_voltage_max_today_v": _float("V", 0, 700, "highest array voltage today"),
    "output_power_max_today_w": _float("W", 0, 10_000, "highest output power today"),
    "absorption_today_s": _int(0, 65535, "seconds in absorption today", "s"),
    "equalize_today_s": _int(0, 65535, "seconds in equalization today", "s"),
    "float_today_s": _int(0, 65535, "seconds in float today", "s"),
}

_COUNT = 2**62
_LONG_S = 20 * 365.25 * 86400

LEGACY_CHARGER = Measurement(
    "one charger under the old program's name (`legacy_measurement`)",
    (),
    {"power_kw": _float("kW", -0.1, 10, "power into the battery")},
)

MEASUREMENTS: Mapping[str, Measurement] = {
    "mate3s": Measurement(
        "the old program's readings of model 101/102/103, unscaled where it stored them unscaled",
        (),
        {
            "Inverter Current": _int(0, 65534, "register A, unscaled", "A"),
            "Power Usage": _int(-32767, 32767, "register W, unscaled", "W"),
            "Battery Voltage": _battery_voltage("DCV, scaled"),
        },
    ),
    "power_room_totals": Measurement(
        "the room as a whole; sums over inverters only when every expected inverter was read",
        (),
        {
            "total_output_current": _float("A", -10_000, 10_000, "output current, L1 + L2"),
            "total_charge_current": _float("A", -10_000, 10_000, "AC charge current, L1 + L2"),
            "total_output_power_kw": _float("kW", 0, 1000, "power out of the inverters"),
            "total_charge_power_kw": _float("kW", 0, 1000, "power into the battery by the inverters"),
            "total_load_power_kw": _float("kW", 0, 1000, "power that the loads take"),
            "battery_voltage": _battery_voltage("102's DCV, else the median of the inverters'"),
            "battery_power_kw": _float(
                "kW",
                -1000,
                1000,
                "into the battery (+) or out of it (-): from the chargers that were read, and the inverters'"
                " charge - output - sell; the inverters' losses and their own use are not in it",
            ),
            "generator_power_kw": _float(
                "kW", 0, 1000, "taken at the generator input by the inverters that have it selected"
            ),
            "grid_power_kw": _float(
                "kW",
                -1000,
                1000,
                "bought (+) or sold (-) at the grid input by the inverters that have it selected",
            ),
            "battery_voltage_night_min": _battery_voltage(
                "lowest since sunset; by day that of last night, until the sun is 5° up"
            ),
            "solar_today_kwh": _day_kwh("energy from the chargers since local midnight"),
            "load_today_kwh": _day_kwh("energy that the loads took since local midnight"),
            "generator_today_kwh": _day_kwh("energy taken at the generator input since local midnight"),
            "grid_today_kwh": _day_kwh("energy bought at the grid input since local midnight"),
            "battery_in_today_kwh": _day_kwh("battery_power_kw where it is +, since local midnight"),
            "battery_out_today_kwh": _day_kwh("battery_power_kw where it is -, since local midnight"),
        },
    ),
    "solar_charger_total": Measurement(
        "sum over all chargers, only when every charger was read",
        (),
        {"power_kw": _float("kW", 0, 1000, "0.0 below 0.010 kW, as the old program wrote it")},
    ),
    "solar_charger_partial": Measurement(
        "sum over the chargers that were read",
        (),
        {
            "power_kw": _float("kW", 0, 1000, "sum over the chargers that were read"),
            "read": _int(0, 10_000, "chargers read"),
            "expected": _int(0, 10_000, "chargers configured"),
        },
    ),
    "inverter": Measurement("one inverter, by its HUB port", ("device", "port"), _INVERTER),
    "charge_controller": Measurement("one charge controller", ("device",), _CHARGE_CONTROLLER),
    "outback_system": Measurement(
        "the MATE3s itself, every 10 minutes",
        ("device",),
        {
            "battery_temperature_c": _temperature("battery sensor"),
            "ambient_temperature_c": _temperature("ambient sensor"),
            "clock_offset_s": _float("s", -_LONG_S * 5, _LONG_S * 5, "its clock minus the monitor's"),
        },
    ),
    "daily_energy": Measurement(
        "one point a device and local day; its time is the midnight that begins the day; rewritten by day",
        ("device",),
        {
            "solar_kwh": _day_kwh("a charger: energy into the battery; its own counter, else integrated"),
            "load_kwh": _day_kwh(
                "inverters: output + bought at both inputs - charger, of their own counters"
            ),
            "generator_kwh": _day_kwh("inverters: taken at the generator input; their own counters"),
            "grid_kwh": _day_kwh("inverters: bought at the grid input; their own counters"),
            "charge_kwh": _day_kwh("inverters' device: into the battery from all sources; integrated"),
            "discharge_kwh": _day_kwh("inverters' device: out of the battery; integrated"),
        },
    ),
    "host": Measurement(
        "the monitor itself, once a minute",
        (),
        {
            "cpu_temperature_c": _temperature("the processor"),
            "cpu_percent": _float("%", 0, 100, "processor in use since the last point, all cores together"),
            "memory_available_mb": _amount("MB", "memory that programs can still get"),
            "memory_total_mb": _amount("MB", "memory"),
            "disk_free_gb": _amount("GB", "free on the disk (SD card) of the root"),
            "disk_total_gb": _amount("GB", "size of the disk of the root"),
            "disk_written_mb": _amount("MB", "written to all disks since the boot"),
            "uptime_s": _float("s", 0, _LONG_S, "since the boot"),
            "load_1m": _float("", 0, 10_000, "processes that run or wait for the disk, mean of a minute"),
            "undervoltage": _int(
                0, 1, "1 where the supply's voltage was too low for the Pi since the last point"
            ),
            "throttled": _int(
                0,
                2**32 - 1,
                "the firmware's bits: 0 undervoltage, 1 capped, 2 throttled now; 16..18 in the last 2 s",
            ),
            "backups": _int(0, 1, "1 once a backup was fetched"),
            "backup_age_h": _float("h", 0, _LONG_S / 3600, "since the last backup was fetched"),
        },
    ),
    "device_status": Measurement(
        "each device, each cycle, also during back-off",
        ("device", "driver"),
        {
            "up": _int(0, 1, "1 where this cycle's poll brought a reading"),
            "expected": _int(
                0, 1, "1 where data is expected of it now: of chargers while the sun is at least 5° up"
            ),
            "response_ms": _float("ms", 0, 1e6, "connection and all requests of the poll"),
            "failures": _int(0, _COUNT, "failed polls in a row"),
            "age_s": _float("s", 0, _LONG_S, "since the last good reading; absent before the first"),
        },
    ),
    "collector_status": Measurement(
        "the collector itself, each cycle",
        (),
        {
            "cycle_ms": _float("ms", 0, 1e7, "the cycle, from its start to its last reading"),
            "points": _int(0, _COUNT, "points of this cycle, this one included"),
            "stored_points": _int(0, _COUNT, "points waiting in memory and in the store"),
            "dropped_points": _int(0, _COUNT, "points dropped since the start"),
            "rejected_points": _int(0, _COUNT, "points that the database refused since the start"),
            "inverters_read": _int(0, 10_000, "inverters read in this cycle"),
            "inverters_expected": _int(0, 10_000, "inverters configured"),
            "clock_source": _int(
                0, 3, "whose time it is: 0 none yet, 1 synchronised, 2 MATE3s, 3 unverified"
            ),
            "memory_mb": _amount("MB", "memory that the collector holds"),
            "uptime_s": _float("s", 0, _LONG_S, "since the collector's start"),
            "clock_steps": _int(
                0, _COUNT, "steps back of the clock since the start, each of an interval or more"
            ),
            "replaced_points": _int(
                0, _COUNT, "points since the start whose time an earlier cycle had, before a step back"
            ),
        },
    ),
}

_LEGACY_NAME = re.compile(r"solar_charger_[0-9]+")


def measurement(name: str) -> Measurement:
    """Return the contract of a measurement.

    Raises:
        KeyError: the contract has no such measurement.
    """
    return LEGACY_CHARGER if _LEGACY_NAME.fullmatch(name) else MEASUREMENTS[name]


@dataclass(frozen=True, slots=True)
class Point:
    """One point, checked against the contract. `time` is in whole seconds since 1970 (UTC)."""

    measurement: str
    tags: Mapping[str, str]
    fields: Mapping[str, int | float]
    time: int

    def to_line(self) -> str:
        """Return the point as InfluxDB line protocol with a time in seconds."""
        key = _escape(self.measurement, ", ")
        for name, value in sorted(self.tags.items()):
            key += f",{_escape(name, ',= ')}={_escape(value, ',= ')}"
        fields = ",".join(
            f"{_escape(name, ',= ')}={value}i"
            if isinstance(value, int)
            else f"{_escape(name, ',= ')}={value!r}"
            for name, value in self.fields.items()
        )
        return f"{key} {fields} {self.time}"


def point(
    name: str, tags: Mapping[str, str], values: Mapping[str, int | float | None], time: int
) -> Point | None:
    """Make a point of what the contract allows of `values`; None where nothing is left.

    Raises:
        KeyError: a measurement or field that the contract does not have, which is a fault of the caller.
        ValueError: tags other than the contract's.
    """
    contract = measurement(name)
    if set(tags) != set(contract.tags):
        raise ValueError(f"{name} carries the tags {contract.tags}, not {tuple(tags)}")
    cast = {field: contract.fields[field].cast(value) for field, value in values.items()}
    fields = {field: value for field, value in cast.items() if value is not None}
    return Point(name, dict(tags), fields, time) if fields else None


def present(points: Iterable[Point | None]) -> list[Point]:
    """Return the points that are there."""
    return [p for p in points if p is not None]


def _escape(text: str, characters: str) -> str:
    for character in characters:
        text = text.replace(character, f"\\{character}")
    return text
