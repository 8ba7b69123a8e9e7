"""The vendors' numbers and bits in the contract's enumerations and bit fields.

A device may send others: they are stored as they are. The words that the family reads are in
files/grafana/words.yml.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, IntEnum, IntFlag

from power_collector.contract import ClockSource


class InverterMode(IntEnum):
    """OutBack 64115/64117, operating mode; 11 and 12 occur without being in the vendor's list."""

    OFF = 0
    SEARCHING = 1
    INVERTING = 2
    CHARGING = 3
    SILENT = 4
    FLOAT = 5
    EQUALIZING = 6
    CHARGER_OFF = 7
    SUPPORT = 8
    SELLING = 9
    PASS_THROUGH = 10
    SLAVE_ON = 11
    SLAVE_OFF = 12
    OFFSETTING = 14


class InverterError(IntFlag):
    """OutBack 64115/64117, error flags."""

    LOW_AC_OUTPUT = 1 << 0
    STACKING = 1 << 1
    OVER_TEMPERATURE = 1 << 2
    LOW_BATTERY = 1 << 3
    PHASE_LOSS = 1 << 4
    HIGH_BATTERY = 1 << 5
    AC_OUTPUT_SHORTED = 1 << 6
    AC_BACKFEED = 1 << 7


class InverterWarning(IntFlag):
    """OutBack 64115/64117, warning flags."""

    INPUT_FREQUENCY_HIGH = 1 << 0
    INPUT_FREQUENCY_LOW = 1 << 1
    INPUT_VOLTAGE_LOW = 1 << 2
    INPUT_VOLTAGE_HIGH = 1 << 3
    INPUT_CURRENT_HIGH = 1 << 4
    TEMPERATURE_SENSOR = 1 << 5
    COMMUNICATION = 1 << 6
    COOLING_FAN = 1 << 7


class ChargeState(IntEnum):
    """TriStar, charge state; 10 on the 600V alone."""

    START = 0
    NIGHT_CHECK = 1
    DISCONNECT = 2
    NIGHT = 3
    FAULT = 4
    MPPT = 5
    ABSORPTION = 6
    FLOAT = 7
    EQUALIZE = 8
    SLAVE = 9
    FIXED = 10


class ChargerFault(IntFlag):
    """TriStar MPPT 600V, fault flags; 14 and 29..31 have no meaning.

    The 150V's 0..9 and 11 mean the same, it has no others.
    """

    OVERCURRENT = 1 << 0
    FET_SHORT = 1 << 1
    SOFTWARE = 1 << 2
    BATTERY_HIGH_VOLTAGE = 1 << 3
    ARRAY_HIGH_VOLTAGE = 1 << 4
    SWITCHES_CHANGED = 1 << 5
    SETTINGS_EDITED = 1 << 6
    SENSOR_SHORTED = 1 << 7
    SENSOR_DISCONNECTED = 1 << 8
    MEMORY = 1 << 9
    WAS_RESET = 1 << 10
    SLAVE_TIMEOUT = 1 << 11
    METER_BRIDGE = 1 << 12
    BATTERY_LOW_VOLTAGE = 1 << 13
    POWER_BOARD = 1 << 15
    SOFTWARE_16 = 1 << 16
    SOFTWARE_17 = 1 << 17
    SOFTWARE_18 = 1 << 18
    SOFTWARE_19 = 1 << 19
    SOFTWARE_20 = 1 << 20
    SOFTWARE_21 = 1 << 21
    FPGA_VERSION = 1 << 22
    CURRENT_REFERENCE = 1 << 23
    SLAVE_CURRENT_TIMEOUT = 1 << 24
    BUS_BOOT = 1 << 25
    LINK_MASTER = 1 << 26
    LINK = 1 << 27
    SLAVE = 1 << 28


class ChargerAlarm(IntFlag):
    """TriStar MPPT 600V, alarm flags; 13 and 31 have no meaning. The 150V's 0..12 and 14..19 are the same."""

    SENSOR_OPEN = 1 << 0
    SENSOR_SHORTED = 1 << 1
    SENSOR_DISCONNECTED = 1 << 2
    HEATSINK_SENSOR_OPEN = 1 << 3
    HEATSINK_SENSOR_SHORTED = 1 << 4
    HOT_CURRENT_LIMIT = 1 << 5
    CURRENT_LIMIT = 1 << 6
    CURRENT_OFFSET = 1 << 7
    SENSE_OUT_OF_RANGE = 1 << 8
    SENSE_DISCONNECTED = 1 << 9
    UNCALIBRATED = 1 << 10
    SENSOR_MISWIRED = 1 << 11
    HIGH_VOLTAGE = 1 << 12
    MISWIRED = 1 << 14
    FETS_OPEN = 1 << 15
    SUPPLY_VOLTAGE = 1 << 16
    HIGH_ARRAY_VOLTAGE = 1 << 17
    CONVERTER_MAXIMUM = 1 << 18
    WAS_RESET = 1 << 19
    INTERNAL = 1 << 20
    LOGIC_SUPPLY_VOLTAGE = 1 << 21
    DERATED = 1 << 22
    ARRAY_CURRENT_OFFSET = 1 << 23
    MEMORY = 1 << 24
    ETHERNET = 1 << 25
    BATTERY_LOW_VOLTAGE = 1 << 26
    SOFTWARE = 1 << 27
    FLOATING_SUPPLY_VOLTAGE = 1 << 28
    FLASH = 1 << 29
    SLAVE_CONTROL = 1 << 30


ENUMERATIONS: Mapping[tuple[str, str], type[Enum]] = {
    ("inverter", "mode"): InverterMode,
    ("inverter", "errors"): InverterError,
    ("inverter", "warnings"): InverterWarning,
    ("charge_controller", "charge_state"): ChargeState,
    ("charge_controller", "faults"): ChargerFault,
    ("charge_controller", "alarms"): ChargerAlarm,
    ("collector_status", "clock_source"): ClockSource,
}
"""Measurement and field -> what its numbers (IntEnum) or bits (IntFlag) mean."""
