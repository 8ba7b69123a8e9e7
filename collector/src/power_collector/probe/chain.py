"""A SunSpec device: its chain, and of each block no more than is needed."""

from __future__ import annotations

import struct

from power_collector.devices import modbus, sunspec
from power_collector.devices.base import RefusedError
from power_collector.devices.outback import AC_MODELS, INVERTER_MODELS, SYSTEM_MODEL
from power_collector.devices.sunspec import Block, MovedError
from power_collector.probe.finding import Finding, HubDevice, Kind, printable

HUB_DEVICES = {
    64111: "charge controller",
    64113: "FX inverter",
    64115: "split-phase inverter",
    64117: "single-phase inverter",
    64118: "FLEXnet DC",
}
"""What hangs on an OutBack HUB, by model. The blocks of their settings are left alone."""
SUNSPEC_INVERTERS = (*AC_MODELS, 111, 112, 113)

_COMMON = 1

_HEADER = 2
_COMMON_SIZE = 66
# Of a common block, in registers: where a text begins, how long it is.
_MAKER, _MODEL, _VERSION, _SERIAL = (2, 16), (18, 16), (42, 8), (50, 16)
# Of a system block ID, length and firmware, which are in every layout: others hold passwords.
_FIRMWARE_SIZE = 5
_PORT_SIZE = 3


async def read(session: modbus.Session, finding: Finding) -> None:
    """Walk the chain and read what identifies the device; goes on where it was interrupted.

    Raises:
        NoChainError: no SunSpec device.
        DeviceError: see Session; what had been read stays in `finding`.
    """
    try:
        await sunspec.walk(session, finding.blocks)
    finally:
        if finding.blocks:
            models = {block.model_id for block in finding.blocks}
            finding.kind = Kind.OUTBACK if models & {SYSTEM_MODEL, *HUB_DEVICES} else Kind.SUNSPEC
    finding.hub.clear()
    finding.facts["chain (model/length)"] = " ".join(f"{b.model_id}/{b.length}" for b in finding.blocks)
    finding.facts["end of the chain"] = await _end(session, finding.blocks)
    for model in INVERTER_MODELS:
        if lengths := [str(block.length) for block in finding.blocks if block.model_id == model]:
            finding.facts[f"lengths of {model}"] = ", ".join(lengths)
    power_kw: list[float | None] = []
    for block in finding.blocks:
        try:
            await _block(session, block, finding, power_kw)
        except (RefusedError, MovedError) as error:
            finding.notes.append(f"model {block.model_id}: {str(error).removeprefix(f'{session.peer}: ')}")
    if power_kw and None not in power_kw:
        total = sum(value for value in power_kw if value is not None)
        finding.facts["output of the inverters together"] = f"{total:.1f} kW"


async def _end(session: modbus.Session, blocks: list[Block]) -> str:
    """Return what stands where the next header would be."""
    if sunspec.is_cut_off(blocks):
        return f"none within {len(blocks)} blocks"
    address = blocks[-1].end if blocks else sunspec.BASE_ADDRESS + _HEADER
    try:
        registers = await session.read_holding_registers(address, _HEADER)
    except RefusedError as refusal:
        return f"exception {refusal.exception_code} at {address}"
    return f"{', '.join(map(str, registers))} at {address}"


async def _block(
    session: modbus.Session, block: Block, finding: Finding, power_kw: list[float | None]
) -> None:
    if block.model_id == _COMMON and not finding.model:
        await _common(session, block, finding)
    elif block.model_id == SYSTEM_MODEL and block.length >= _FIRMWARE_SIZE - _HEADER:
        registers = await session.read_holding_registers(block.address, _FIRMWARE_SIZE)
        finding.facts["firmware in 64110"] = ".".join(map(str, registers[_HEADER:]))
    elif block.model_id in AC_MODELS:
        model = await sunspec.read_block(session, block)
        power, exponent = sunspec.raw(model, "W"), sunspec.raw(model, "W_SF")
        finding.facts[f"power in {block.model_id}"] = f"{power} with scale factor {exponent}"
    elif block.model_id in INVERTER_MODELS:
        model = await sunspec.read_block(session, block)
        finding.hub.append(HubDevice(sunspec.raw(model, "port"), block.model_id))
        power_kw.append(sunspec.scaled(model, "output_power_kw"))
    elif block.model_id in HUB_DEVICES:
        registers = await session.read_holding_registers(block.address, _PORT_SIZE)
        finding.hub.append(HubDevice(registers[_HEADER], block.model_id))


async def _common(session: modbus.Session, block: Block, finding: Finding) -> None:
    size = _HEADER + min(block.length, _COMMON_SIZE)
    registers = await session.read_holding_registers(block.address, size)
    data = struct.pack(f">{size}H", *registers)
    finding.maker, finding.model, finding.firmware, finding.serial = (
        printable(data[2 * begin : 2 * (begin + length)])
        for begin, length in (_MAKER, _MODEL, _VERSION, _SERIAL)
    )
