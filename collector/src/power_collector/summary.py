"""Points -> a few rows for people: one line a device, and the totals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from power_collector.config import DeviceConfig

PointTable = Mapping[str, Any]
"""A point as `latest.point_table` makes it."""

# field, what people call it, unit, decimals
_OUTBACK = (
    ("battery_voltage", "battery", "V", 1),
    ("total_load_power_kw", "load", "kW", 1),
    ("total_output_power_kw", "output", "kW", 1),
    ("total_charge_power_kw", "charge", "kW", 1),
)
_CHARGER = (
    ("output_power_w", "output", "W", 0),
    ("battery_voltage_v", "battery", "V", 1),
    ("array_voltage_v", "array", "V", 0),
    ("today_kwh", "today", "kWh", 1),
)


@dataclass(frozen=True, slots=True)
class Row:
    """A device and what it last said; `values` is empty where it said nothing."""

    device: str
    driver: str
    values: tuple[tuple[str, str], ...]


def rows(devices: Iterable[DeviceConfig | Mapping[str, Any]], points: Sequence[PointTable]) -> list[Row]:
    """Return one row a device, with the values that people look for first."""
    return [
        _row(device["name"], device["driver"], points)
        if isinstance(device, Mapping)
        else _row(device.name, device.driver, points)
        for device in devices
    ]


def _row(name: str, driver: str, points: Sequence[PointTable]) -> Row:
    fields: dict[str, int | float] = {}
    for point in points:
        # power_room_totals has no tag, but only one outback device may feed it.
        mine = point["tags"].get("device") == name and point["measurement"] == "charge_controller"
        if mine or (driver == "outback" and point["measurement"] == "power_room_totals"):
            fields |= point["fields"]
    values = tuple(
        (label, f"{fields[field]:.{decimals}f} {unit}")
        for field, label, unit, decimals in (_OUTBACK if driver == "outback" else _CHARGER)
        if field in fields
    )
    return Row(name, driver, values)


def as_text(table: Sequence[Row], without_value: str = "no answer") -> str:
    """Return the rows as aligned text."""
    width = max((len(row.device) for row in table), default=0)
    return "\n".join(
        f"{row.device:<{width}}  "
        + (", ".join(f"{label} {value}" for label, value in row.values) or without_value)
        for row in table
    )
