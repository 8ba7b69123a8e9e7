"""Morningstar TriStar MPPT: one request of 80 registers, decoded as half floats (600V) or scaled integers."""

from __future__ import annotations

import logging
import math
import struct
from collections.abc import Sequence

from power_collector.config import DeviceConfig
from power_collector.devices import modbus
from power_collector.devices.base import ChargeControllerReading, UnexpectedAnswerError, Values

COUNT = 0x50
"""So many registers from 0 on are read at once."""
FIRMWARE = 0x04
"""The register with the firmware's number in BCD."""
_BATTERY_CURRENT = 0x1C
_BATTERY_VOLTAGE = 0x18
_OUTPUT_POWER = 0x3A
_FAULTS = 0x2C
_TOTAL_KWH = 0x39
_TODAY_AH = 0x43
TODAY_ENERGY = 0x44
"""The register with today's energy: Wh as an integer, or on some 600V kWh as a half float."""

# Both kinds have these at the same addresses.
_VOLTAGES = {
    "battery_voltage_v": _BATTERY_VOLTAGE,
    "battery_terminal_voltage_v": 0x19,
    "battery_sense_voltage_v": 0x1A,
    "target_voltage_v": 0x33,
    "array_voltage_v": 0x1B,
    "battery_voltage_min_today_v": 0x40,
    "battery_voltage_max_today_v": 0x41,
    "array_voltage_max_today_v": 0x42,
}
_CURRENTS = {"battery_current_a": _BATTERY_CURRENT, "array_current_a": 0x1D}
_POWERS = {"output_power_w": _OUTPUT_POWER, "input_power_w": 0x3B, "output_power_max_today_w": 0x46}
_TEMPERATURES = {
    "heatsink_temperature_c": 0x23,
    "remote_temperature_c": 0x24,
    "battery_temperature_c": 0x25,
}
_NUMBERS = {
    "led_state": 0x31,
    "charge_state": 0x32,
    "absorption_today_s": 0x4D,
    "equalize_today_s": 0x4E,
    "float_today_s": 0x4F,
}
_LONG_NUMBERS = {"hourmeter_h": 0x2A, "alarms": 0x2E}

HALF_FLOAT_FIRMWARE = 0x19
"""Half floats are certain from this firmware on."""
_BATTERY_VOLTAGES = (8.0, 80.0)
_POWER_TOLERANCE = 0.10
_POWER_TOLERANCE_W = 20.0
# Today's energy against charge times voltage: the voltage changes by a quarter in a day.
_ENERGY_FACTOR = 1.5
_NO_SENSOR = 0x80

_log = logging.getLogger(__name__)


class TriStar:
    """A TriStar MPPT 600V, or with the driver `tristar-mppt` a TriStar MPPT 45 or 60 of 150 V."""

    def __init__(self, config: DeviceConfig) -> None:
        self._config = config
        self._told = False

    async def read(self) -> ChargeControllerReading:
        """Connect, read, close. A reading without values: the firmware is too old to be trusted.

        Raises:
            DeviceError: nothing was read.
        """
        config = self._config
        async with modbus.session(config.name, config.host, config.port, config.timeout_s) as session:
            registers = await session.read_holding_registers(0, COUNT)
        if config.driver == "tristar-mppt":
            return ChargeControllerReading(scaled_values(registers, session.peer))
        values = half_float_values(registers)
        if not (config.float16 or has_half_floats(registers[FIRMWARE]) or is_consistent(values)):
            self._tell(registers[FIRMWARE], session.peer)
            return ChargeControllerReading({})
        return ChargeControllerReading(values)

    def _tell(self, firmware: int, peer: str) -> None:
        if not self._told:
            self._told = True
            _log.warning(
                "%s: firmware %x may not send half floats (certain from %x on) and its numbers do not agree:"
                " no values are taken; if power and voltage on its display match, set float16 = true",
                peer,
                firmware,
                HALF_FLOAT_FIRMWARE,
            )


def has_half_floats(firmware: int) -> bool:
    """Whether a firmware number is in BCD, as the device writes it, and high enough."""
    return f"{firmware:x}".isdecimal() and firmware >= HALF_FLOAT_FIRMWARE


def is_consistent(values: Values) -> bool:
    """Whether these can be a charger's: a battery's voltage, and a power that is voltage times current."""
    voltage, current, power = (
        values[name] for name in ("battery_voltage_v", "battery_current_a", "output_power_w")
    )
    if voltage is None or current is None or power is None:
        return False
    tolerance = max(_POWER_TOLERANCE * abs(power), _POWER_TOLERANCE_W)
    low, high = _BATTERY_VOLTAGES
    return low <= voltage <= high and abs(power - voltage * current) <= tolerance


def half_float_values(registers: Sequence[int]) -> Values:
    """Decode registers 0 to 79 of a 600V model; NaN and infinities are None."""
    floats = [
        value if math.isfinite(value) else None
        for value in struct.unpack(f">{COUNT}e", struct.pack(f">{COUNT}H", *registers))
    ]
    return {
        **{
            name: floats[address]
            for name, address in (_VOLTAGES | _CURRENTS | _POWERS | _TEMPERATURES).items()
        },
        **_numbers(registers),
        "faults": _long(registers, _FAULTS),
        "total_kwh": floats[_TOTAL_KWH],
        "today_ah": floats[_TODAY_AH],
        "today_kwh": _today_kwh(
            registers[TODAY_ENERGY], floats[TODAY_ENERGY], floats[_TODAY_AH], floats[_BATTERY_VOLTAGE]
        ),
    }


def _today_kwh(
    watt_hours: int, kilowatt_hours: float | None, ampere_hours: float | None, voltage: float | None
) -> float | None:
    """Return today's energy: the specification has Wh as an integer there, a real unit kWh as a half float.

    Charge times voltage says which: that of the two that comes closest, None where none comes close.
    """
    if watt_hours == 0:
        return 0.0
    if ampere_hours is None or voltage is None or ampere_hours * voltage <= 0:
        return None
    expected = ampere_hours * voltage / 1000

    def distance(value: float) -> float:
        return max(value / expected, expected / value)

    readings = [value for value in (watt_hours / 1000, kilowatt_hours) if value is not None and value > 0]
    closest = min(readings, key=distance)
    return closest if distance(closest) <= _ENERGY_FACTOR else None


def scaled_values(registers: Sequence[int], peer: str) -> Values:
    """Decode registers 0 to 79 of a 150 V model; `peer` is for the message.

    Raises:
        UnexpectedAnswerError: registers 0 to 3 hold no scaling.
    """
    per_unit_v = registers[0] + registers[1] / 0x10000
    per_unit_a = registers[2] + registers[3] / 0x10000
    if per_unit_v == 0 or per_unit_a == 0:
        raise UnexpectedAnswerError(
            f"{peer}: no scaling in registers 0 to 3; a 600V model needs the driver tristar-mppt-600v"
        )
    signed = struct.unpack(f">{COUNT}h", struct.pack(f">{COUNT}H", *registers))
    return {
        **{name: signed[address] * per_unit_v / 0x8000 for name, address in _VOLTAGES.items()},
        **{name: signed[address] * per_unit_a / 0x8000 for name, address in _CURRENTS.items()},
        **{name: registers[address] * per_unit_v * per_unit_a / 0x20000 for name, address in _POWERS.items()},
        **{
            name: None if registers[address] == _NO_SENSOR else signed[address]
            for name, address in _TEMPERATURES.items()
        },
        **_numbers(registers),
        "faults": registers[_FAULTS],
        "total_kwh": registers[_TOTAL_KWH],
        "today_ah": registers[_TODAY_AH] / 10,
        "today_kwh": registers[TODAY_ENERGY] / 1000,
    }


def _numbers(registers: Sequence[int]) -> Values:
    return {
        **{name: registers[address] for name, address in _NUMBERS.items()},
        **{name: _long(registers, address) for name, address in _LONG_NUMBERS.items()},
    }


def _long(registers: Sequence[int], address: int) -> int:
    return registers[address] << 16 | registers[address + 1]
