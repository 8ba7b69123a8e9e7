"""OutBack MATE3s and AXS Port: the inverters behind them and their own clock."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone

from power_collector.config import DeviceConfig
from power_collector.contract import MEASUREMENTS
from power_collector.devices import modbus, sunspec
from power_collector.devices.base import (
    DeviceError,
    InverterReading,
    OutbackReading,
    RefusedError,
    SystemReading,
    UnexpectedAnswerError,
)
from power_collector.devices.sunspec import Block, MovedError

WALK_INTERVAL_S = 3600.0
"""A device that is appended to the chain moves nothing: only a new walk finds it."""
RETRY_INTERVAL_S = 60.0
"""Until the next try after an interrupted walk, or while inverters are missing."""
SYSTEM_INTERVAL_S = 600.0

AC_MODELS = (101, 102, 103)
SYSTEM_MODEL = 64110
INVERTER_MODELS = (64115, 64117)
_PORTS = range(11)

# The only registers of block 64110 that are ever read: others hold passwords. A shorter block is of an older
# layout, where these offsets hold something else.
_ZONE_OFFSET = 271
_SYSTEM_OFFSET = 392
_SYSTEM_COUNT = 28
_SYSTEM_LENGTH = 420

_YEARS = range(2000, 2100)
_MAX_ZONE_H = 14
_INT16_ABSENT = 0x8000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Chain:
    ac: Block | None
    system: Block | None
    inverters: tuple[Block, ...]
    zone: int | None = None
    """Register 271 of the system block: the box's time zone, unscaled."""


class Outback:
    """A poll reads the AC block and each inverter's; every 10 minutes the clock and temperatures too.

    `clock` is monotonic, in seconds. A block that refuses is left out of the reading; so is an inverter that
    is not in the chain.
    """

    def __init__(self, config: DeviceConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._clock = clock
        self._chain: _Chain | None = None
        self._walking: list[Block] = []
        self._walk_due = 0.0
        self._system_due = clock()
        self._ports: dict[Block, int | None] = {}
        self._gone: set[Block] = set()
        self._told_endless = False

    async def read(self) -> OutbackReading:
        """Connect, read, close.

        Raises:
            DeviceError: nothing was read.
        """
        config = self._config
        # Each is the better one; the last counts.
        readings: list[OutbackReading] = []
        try:
            async with modbus.session(config.name, config.host, config.port, config.timeout_s) as session:
                readings.append(await self._read_values(session))
                # What follows is seldom; its failure costs nothing of what was read.
                if self._clock() >= self._system_due:
                    readings.append(replace(readings[-1], system=await self._read_system(session)))
                if self._clock() >= self._walk_due:
                    known, chain = self._chain, await self._walk(session)
                    # An inverter that came back is in this poll's reading, not only in the next one's.
                    if known is None or chain.inverters != known.inverters:
                        again = await self._read_chain(session, chain, walked=True)
                        readings.append(replace(again, system=readings[-1].system))
        except DeviceError as error:
            if not readings:
                raise
            _log.debug("%s; this poll's values had been read", error)
        return readings[-1]

    async def _walk(self, session: modbus.Session) -> _Chain:
        """Find the blocks; goes on where a walk was interrupted, so that a slow device is walked at last."""
        self._walk_due = self._clock() + RETRY_INTERVAL_S
        blocks = await sunspec.walk(session, self._walking)
        if sunspec.is_cut_off(blocks) and not self._told_endless:
            self._told_endless = True
            _log.warning("%s: its SunSpec chain has no end: read %d blocks", session.peer, len(blocks))
        by_model: dict[int, list[Block]] = {}
        for block in blocks:
            by_model.setdefault(block.model_id, []).append(block)
        ac = [block for model in AC_MODELS for block in by_model.get(model, [])]
        system = [block for block in by_model.get(SYSTEM_MODEL, []) if block.length >= _SYSTEM_LENGTH]
        inverters = [block for block in blocks if block.model_id in INVERTER_MODELS]
        if not by_model.keys() & {*AC_MODELS, *INVERTER_MODELS, SYSTEM_MODEL}:
            self._walking = []
            raise UnexpectedAnswerError(
                f"{session.peer}: neither MATE3s nor AXS Port: it has the SunSpec models"
                f" {', '.join(map(str, by_model)) or '(none)'}; check driver and address"
            )
        chain = _Chain(ac[0] if ac else None, system[0] if system else None, tuple(inverters))
        chain = replace(chain, zone=await self._read_zone(session, chain))
        self._chain = chain
        self._walking = []
        self._ports = {}
        if len(inverters) >= (self._config.inverters or 0):
            self._walk_due = self._clock() + WALK_INTERVAL_S
        return chain

    async def _read_values(self, session: modbus.Session) -> OutbackReading:
        chain = self._chain
        if chain is not None:
            try:
                return await self._read_chain(session, chain, walked=False)
            except MovedError as moved:
                _log.info("%s; looking for its blocks again", moved)
            self._chain = None
            self._walking = []
        return await self._read_chain(session, await self._walk(session), walked=True)

    async def _read_chain(self, session: modbus.Session, chain: _Chain, *, walked: bool) -> OutbackReading:
        """Read all blocks. `walked`: the chain is of this poll, so that walking again would bring nothing."""
        refusals: list[RefusedError] = []

        async def read_block(block: Block) -> sunspec.Model | None:
            try:
                model = await sunspec.read_block(session, block)
            except RefusedError as refusal:
                if refusal.exception_code == modbus.ILLEGAL_ADDRESS:
                    if not walked and block not in self._gone:
                        raise MovedError(str(refusal)) from None
                    self._gone.add(block)
                refusals.append(refusal)
                return None
            self._gone.discard(block)
            return model

        reading = OutbackReading(())
        if chain.ac is not None and (model := await read_block(chain.ac)) is not None:
            reading = OutbackReading(
                (),
                ac_current_raw=sunspec.raw(model, "A"),
                ac_power_raw=sunspec.raw(model, "W"),
                dc_voltage_v=sunspec.scaled(model, "DCV"),
            )
        inverters: list[InverterReading] = []
        for block in chain.inverters:
            model = await read_block(block)
            if model is None:
                continue
            port = sunspec.raw(model, "port")
            if port != self._ports.setdefault(block, port):
                raise MovedError(f"{session.peer}: the inverter at {block.address} has port {port} now")
            # Two of one port would be two points of one series and time, and one would overwrite the other.
            if port is not None and port in _PORTS and all(port != one.port for one in inverters):
                inverters.append(InverterReading(port, _inverter_values(model)))
        asked = len(chain.inverters) + (chain.ac is not None)
        if refusals and len(refusals) == asked:
            raise refusals[-1]
        return replace(reading, inverters=tuple(inverters))

    async def _read_zone(self, session: modbus.Session, chain: _Chain) -> int | None:
        if chain.system is None:
            return None
        try:
            (zone,) = await session.read_holding_registers(chain.system.address + _ZONE_OFFSET, 1)
        except RefusedError:
            return None
        return zone

    async def _read_system(self, session: modbus.Session) -> SystemReading | None:
        chain = self._chain
        if chain is None or chain.system is None:
            return None
        # For the case that the poll's time ends before the answer.
        self._system_due = self._clock() + RETRY_INTERVAL_S
        try:
            registers = await session.read_holding_registers(
                chain.system.address + _SYSTEM_OFFSET, _SYSTEM_COUNT
            )
        except RefusedError as refusal:
            _log.debug("%s", refusal)
            registers = None
        self._system_due = self._clock() + SYSTEM_INTERVAL_S
        if registers is None:
            return None
        model = sunspec.decode(SYSTEM_MODEL, registers)
        temperatures = ("battery_temperature_c", "ambient_temperature_c")
        return SystemReading(
            {name: sunspec.scaled(model, name) for name in temperatures},
            _clock_of(model, chain.zone),
            self._clock(),
        )


def _inverter_values(model: sunspec.Model) -> dict[str, int | float | None]:
    return {
        name: sunspec.scaled(model, name) for name in MEASUREMENTS["inverter"].fields if name in model.points
    }


def _clock_of(model: sunspec.Model, zone: int | None) -> datetime | None:
    """Return the box's time, None where the registers cannot be one, or its zone is not known."""
    parts = [sunspec.raw(model, name) for name in ("year", "month", "day", "hour", "minute", "second")]
    exponent = sunspec.raw(model, "time_zone_sf")
    if zone is None or zone == _INT16_ABSENT or exponent is None or exponent not in sunspec.SCALE_FACTORS:
        return None
    hours = (zone - 0x10000 if zone >= 0x8000 else zone) * 10.0**exponent
    if abs(hours) > _MAX_ZONE_H or parts[0] not in _YEARS:
        return None
    try:
        year, month, day, hour, minute, second = (part for part in parts if part is not None)
        return datetime(year, month, day, hour, minute, second, tzinfo=timezone(timedelta(hours=hours)))
    except ValueError:
        return None
