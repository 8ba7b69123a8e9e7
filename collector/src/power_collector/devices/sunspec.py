"""SunSpec: finding the blocks of a device, reading one, decoding it with our own definitions."""

from __future__ import annotations

import functools
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from sunspec2 import device as sunspec2_device

from power_collector.devices.base import RefusedError, UnexpectedAnswerError
from power_collector.devices.modbus import ILLEGAL_ADDRESS, Session

BASE_ADDRESS = 40000
MAX_BLOCKS = 100
SCALE_FACTORS = range(-10, 11)
"""Exponents of ten that are taken for a scale factor; the devices use -2 to 0."""

_MARK = [0x5375, 0x6E53]  # "SunS"
_HEADER = 2
_ADDRESSES = 0x10000
_END_IDS = (0xFFFF, 0)
_INT16_ABSENT = 0x8000
# These models have one layout.
_DEFINED_BY = {101: 102, 103: 102}

Model = Any
"""A decoded block: pysunspec2's Model, which has no types."""


class NoChainError(UnexpectedAnswerError):
    """The registers where a SunSpec chain begins hold something else."""


class MovedError(UnexpectedAnswerError):
    """Where a block was, there is another one now."""


@dataclass(frozen=True, slots=True)
class Block:
    """A block of the chain: `address` is that of its model ID, `length` does not count ID and length."""

    model_id: int
    address: int
    length: int

    @property
    def end(self) -> int:
        """The address behind the block."""
        return self.address + _HEADER + self.length


async def walk(session: Session, found: list[Block] | None = None) -> list[Block]:
    """Find the blocks of the chain: one request for the mark and one for each header.

    The chain ends with the model ID 0xFFFF, or, on older devices, with zeros or with the end of the
    registers. `found` holds what an interrupted walk had found already, and is extended in place.

    Raises:
        NoChainError: no chain here.
        DeviceError: see Session.
    """
    blocks = [] if found is None else found
    if not blocks and await session.read_holding_registers(BASE_ADDRESS, len(_MARK)) != _MARK:
        raise NoChainError(
            f"{session.peer}: no SunSpec device: no mark at register {BASE_ADDRESS}; check driver and address"
        )
    while not is_cut_off(blocks):
        address = blocks[-1].end if blocks else BASE_ADDRESS + len(_MARK)
        # The header alone: what follows may be a block with passwords.
        try:
            model_id, length = await session.read_holding_registers(address, _HEADER)
        except RefusedError as refusal:
            if refusal.exception_code != ILLEGAL_ADDRESS:
                raise
            break
        if model_id in _END_IDS or length == 0:
            break
        blocks.append(Block(model_id, address, length))
    return blocks


def is_cut_off(blocks: Sequence[Block]) -> bool:
    """Whether a walk stops behind these blocks without having met the chain's end."""
    return len(blocks) >= MAX_BLOCKS or (len(blocks) > 0 and blocks[-1].end + _HEADER > _ADDRESSES)


async def read_block(session: Session, block: Block) -> Model:
    """Read a block, its header included, and decode it; needs a definition of its model.

    Raises:
        MovedError: another block is there now.
        DeviceError: see Session.
    """
    count = min(_HEADER + block.length, _size(block.model_id))
    registers = await session.read_holding_registers(block.address, count)
    if registers[:_HEADER] != [block.model_id, block.length]:
        raise MovedError(
            f"{session.peer}: register {block.address} began model {block.model_id} of length {block.length},"
            f" now model {registers[0]} of length {registers[1]}"
        )
    return decode(block.model_id, registers)


def decode(model_id: int, registers: Sequence[int]) -> Model:
    """Decode registers from the definition's first point on; points behind the last register are absent."""
    # A new one each time: a model that is used again keeps values that are absent now.
    model = sunspec2_device.Model(model_id, model_def=_definition(model_id))
    # Not by the constructor's data=, which would take ID and length from the definition.
    model.set_mb(struct.pack(f">{len(registers)}H", *registers))
    return model


def raw(model: Model, name: str) -> int | None:
    """Return a point as it stands in its register, None where it is absent."""
    point = model.points[name]
    value: int | None = point.value
    # The vendor types modes and flags as int16, SunSpec as unsigned: take the absent value of both.
    if value == _INT16_ABSENT and point.pdef["type"] in ("enum16", "bitfield16"):
        return None
    return value


def scaled(model: Model, name: str) -> int | float | None:
    """Return a point in its unit, None where it or its scale factor is absent or no scale factor."""
    value = raw(model, name)
    if value is None:
        return None
    point = model.points[name]
    if point.sf is None:
        return value
    # pysunspec2 returns the unscaled register where the factor is absent, and overflows on a large one.
    if model.points[point.sf].value not in SCALE_FACTORS:
        return None
    result: int | float = point.cvalue
    return result


@functools.cache
def _definition(model_id: int) -> dict[str, Any]:
    name = f"model_{_DEFINED_BY.get(model_id, model_id)}.json"
    text = resources.files("power_collector.devices").joinpath("models", name).read_text(encoding="utf-8")
    definition: dict[str, Any] = json.loads(text)
    return definition


@functools.cache
def _size(model_id: int) -> int:
    return sum(point["size"] for point in _definition(model_id)["group"]["points"])
