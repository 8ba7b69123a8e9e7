"""What listens at one address: SunSpec first, then the device identification, then a TriStar's registers."""

from __future__ import annotations

from power_collector.devices import modbus
from power_collector.devices.base import (
    DeviceError,
    HungUpError,
    NoAnswerError,
    RefusedError,
    UnexpectedAnswerError,
    UnreachableError,
)
from power_collector.devices.sunspec import NoChainError
from power_collector.probe import chain, charger
from power_collector.probe.finding import Finding, Kind
from power_collector.probe.line import Line

RETRY_S = 1.0
"""Until a device that may be held by another program is asked once more: a poll takes less."""

_BUSY = (5, 6)


async def identify(line: Line, port: int, *, held: bool) -> Finding | None:
    """Return what listens at this port, None where nobody does. `held`: a running collector reads it."""
    finding = Finding(line.host, port)
    connections, requests = line.connections, line.requests
    try:
        await _ask(line, finding, held=held)
    except DeviceError as error:
        if line.connections == connections and not held:
            return None
        if isinstance(error, UnexpectedAnswerError) and finding.kind is Kind.MUTE:
            finding.kind = Kind.NOT_MODBUS
        finding.notes.append(_words(error, finding))
    finding.connections, finding.requests = line.connections - connections, line.requests - requests
    return finding


async def _ask(line: Line, finding: Finding, *, held: bool) -> None:
    async def sunspec(session: modbus.Session) -> None:
        await chain.read(session, finding)

    try:
        try:
            await line.ask(finding.port, sunspec)
        except DeviceError as error:
            if not _may_be_busy(error, held=held):
                raise
            finding.notes.append(f"asked again, since at first: {_words(error, finding)}")
            await line.sleep(RETRY_S)
            await line.ask(finding.port, sunspec)
    except (NoChainError, RefusedError):
        if finding.blocks:
            raise
        finding.kind = Kind.MODBUS
        await charger.read(line, finding)


def _may_be_busy(error: DeviceError, *, held: bool) -> bool:
    """Whether another client may be the cause: a device that serves one refuses, hangs up or is silent."""
    if isinstance(error, RefusedError):
        return error.exception_code in _BUSY
    if isinstance(error, UnreachableError):
        return held or isinstance(error, HungUpError)
    return isinstance(error, NoAnswerError)


def _words(error: DeviceError, finding: Finding) -> str:
    return str(error).removeprefix(f"device ({finding.address}): ")
