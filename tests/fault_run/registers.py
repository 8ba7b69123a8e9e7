"""A decoder of a handful of fields, written from the vendors' tables and without any of the collector's code."""

from __future__ import annotations

import struct
from collections.abc import Sequence

Registers = Sequence[int]
Series = tuple[str, tuple[tuple[str, str], ...]]
Fields = dict[Series, dict[str, float]]


def charger(name: str, legacy: str | None, registers: Registers, *, half_floats: bool) -> Fields:
    """Decode a TriStar's registers from 0 on: of a 600V (half floats), else of the 150 V model (scaled)."""
    if half_floats:
        voltage, array, power = (_half(registers[address]) for address in (0x18, 0x1B, 0x3A))
    else:
        volts = registers[0] + registers[1] / 65536
        amperes = registers[2] + registers[3] / 65536
        voltage, array = (_signed(registers[address]) * volts / 32768 for address in (0x18, 0x1B))
        power = registers[0x3A] * volts * amperes / 131072
    decoded: Fields = {
        ("charge_controller", (("device", name),)): {
            "battery_voltage_v": voltage,
            "array_voltage_v": array,
            "output_power_w": power,
            "charge_state": registers[0x32],
            "alarms": registers[0x2E] * 65536 + registers[0x2F],
        }
    }
    if legacy is not None:
        decoded[legacy, ()] = {"power_kw": power / 1000}
    return decoded


def outback(name: str, ac: Registers | None, inverters: Sequence[Registers], expected: int) -> Fields:
    """Decode model 102 and the models 64115, each with its two header registers."""
    decoded: Fields = {}
    totals: dict[str, float] = {}
    if ac is not None:
        decoded["mate3s", ()] = {
            "Inverter Current": ac[2],
            "Power Usage": _signed(ac[14]),
            "Battery Voltage": ac[29] / 10,
        }
        totals["battery_voltage"] = ac[29] / 10
    for block in inverters:
        decoded["inverter", (("device", name), ("port", str(block[2])))] = {
            "l1_output_current_a": block[7],
            "l2_output_current_a": block[14],
            "mode": block[21],
            "battery_voltage_v": block[24] / 10,
            "output_power_kw": block[54] / 10,
            "load_power_kw": block[58] / 10,
        }
    if len(inverters) == expected:
        totals["total_output_current"] = sum(block[7] + block[14] for block in inverters)
        totals["total_output_power_kw"] = sum(block[54] for block in inverters) / 10
        totals["total_load_power_kw"] = sum(block[58] for block in inverters) / 10
    if totals:
        decoded["power_room_totals", ()] = totals
    return decoded


def _half(register: int) -> float:
    value: float = struct.unpack(">e", struct.pack(">H", register))[0]
    return value


def _signed(register: int) -> int:
    return register - 65536 if register & 0x8000 else register
