"""A device without a SunSpec chain: a TriStar, or something that is none."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from power_collector.devices import modbus, tristar
from power_collector.devices.base import DeviceError, UnexpectedAnswerError
from power_collector.probe.finding import Finding, Kind, printable
from power_collector.probe.line import Line

_PRODUCT = "TS-MPPT"
_HIGH_VOLTAGE = "600V"
_SERIAL, _SERIAL_SIZE = 0xE0C0, 4


async def read(line: Line, finding: Finding) -> None:
    """Tell by the device identification what it is, or where it has none by its registers.

    Each question has a connection of its own: a TriStar closes after each answer.

    Raises:
        DeviceError: see Line; what had been read stays in `finding`.
    """
    try:
        identity = await line.ask(finding.port, modbus.Session.read_identification)
    except DeviceError:
        identity = {}  # many devices do not know the question
    maker, product, revision = (printable(identity.get(number, b"")) for number in range(3))
    finding.maker, finding.model, finding.firmware = maker, product, revision
    if _PRODUCT in product.upper():
        finding.kind = Kind.TRISTAR_600V if _HIGH_VOLTAGE in product.upper() else Kind.TRISTAR_150V
    elif identity:
        return
    registers = await line.ask(finding.port, lambda s: s.read_holding_registers(0, tristar.COUNT))
    if finding.kind.driver is not None:
        _facts(registers, finding)
    serial = await line.ask(finding.port, lambda s: s.read_holding_registers(_SERIAL, _SERIAL_SIZE))
    # The low byte comes first.
    finding.serial = printable(struct.pack(f"<{_SERIAL_SIZE}H", *serial))
    if finding.kind.driver is None and _recognise(registers, finding):
        _facts(registers, finding)


def _recognise(registers: Sequence[int], finding: Finding) -> bool:
    """Take a charger's values and a serial number for enough: nothing else has both at these registers."""
    if not finding.serial.isalnum():
        finding.serial = ""
        return False
    if tristar.is_consistent(tristar.half_float_values(registers)):
        finding.kind = Kind.TRISTAR_600V
    elif _is_scaled(registers):
        finding.kind = Kind.TRISTAR_150V
    return finding.kind.driver is not None


def _is_scaled(registers: Sequence[int]) -> bool:
    try:
        return tristar.is_consistent(tristar.scaled_values(registers, ""))
    except UnexpectedAnswerError:
        return False


def _facts(registers: Sequence[int], finding: Finding) -> None:
    firmware = registers[tristar.FIRMWARE]
    finding.firmware = f"{firmware:x}"
    if finding.kind is not Kind.TRISTAR_600V:
        return
    values = tristar.half_float_values(registers)
    energy = registers[tristar.TODAY_ENERGY]
    finding.facts["register 0x44, energy today"] = (
        f"{_energy_type(energy, values['today_kwh'])} (0x{energy:04X})"
    )
    if not tristar.has_half_floats(firmware):
        finding.notes.append(
            f"half floats are certain from firmware {tristar.HALF_FLOAT_FIRMWARE:x} on; its numbers "
            + ("agree with half floats" if tristar.is_consistent(values) else "do not agree with half floats")
            + ": compare power and voltage with its display; float16: true takes them without a doubt"
        )


def _energy_type(register: int, kwh: float | None) -> str:
    if register == 0:
        return "nothing yet, ask again when it has charged"
    if kwh is None:
        return "undecided"
    return "Wh as an integer" if kwh == register / 1000 else "kWh as a half float"
