"""The only way to a device: Modbus TCP that reads and cannot write, one connection a poll."""

from __future__ import annotations

import asyncio
import logging
import os
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException
from pymodbus.pdu import ModbusPDU

from power_collector.devices.base import (
    DeviceError,
    HungUpError,
    NoAnswerError,
    RefusedError,
    UnexpectedAnswerError,
    UnreachableError,
)

MAX_REGISTERS = 100
"""Most registers in one request: a MATE3s does not take more well."""

ILLEGAL_ADDRESS = 2
"""The Modbus exception code for registers that are not there."""

_UNIT = 1
_READ_HOLDING_REGISTERS = 0x03
_READ_INPUT_REGISTERS = 0x04
_ENCAPSULATED_INTERFACE = 0x2B
_READ_DEVICE_IDENTIFICATION = 0x0E
_BASIC = 0x01

# What a frame's length counts: unit, function, MEI type, code, conformity, more, next, number; then objects.
_IDENTIFICATION_SIZES = range(8, 255)

_REASONS = {
    1: "illegal function",
    ILLEGAL_ADDRESS: "illegal address",
    3: "illegal value",
    4: "device failure",
    5: "still working",
    6: "busy",
    10: "no path behind the gateway",
    11: "no answer behind the gateway",
}

# It writes several lines for each time-out; what matters is in the DeviceError.
logging.getLogger("pymodbus").setLevel(logging.CRITICAL + 1)


class ForbiddenFunctionError(RuntimeError):
    """Our own code tried to send something other than a read. Nothing was sent."""


class Session:
    """An open connection to one device. `requests` counts what was asked; `peer` names the device."""

    def __init__(self, name: str, host: str, port: int, answer_s: float) -> None:
        self.peer = f"{name} ({host}:{port})"
        self.requests = 0
        self._answer_s = answer_s
        self._asked: ModbusPDU | None = None
        self._client = AsyncModbusTcpClient(
            host,
            port=port,
            timeout=answer_s,
            retries=0,
            reconnect_delay=0,
            trace_pdu=self._on_pdu,
            trace_packet=self._on_packet,
            trace_connect=self._on_connection,
        )

    async def read_holding_registers(self, address: int, count: int) -> list[int]:
        """Return `count` (1..100) registers from `address` on, each 0..65535.

        Raises:
            HungUpError: the device hung up.
            NoAnswerError: it did not answer in time.
            RefusedError: it answered with a Modbus exception.
            UnexpectedAnswerError: it sent something else than these registers.
        """
        if not 1 <= count <= MAX_REGISTERS:
            raise ValueError(f"{count} registers in a request: 1 to {MAX_REGISTERS} are allowed")
        answer = await self._ask(
            lambda: self._client.read_holding_registers(address, count=count, device_id=_UNIT),
            f"registers {address} to {address + count - 1}",
        )
        return list(answer.registers)

    async def read_identification(self) -> dict[int, bytes]:
        """Return the device identification, as far as the device tells: 0 maker, 1 product, 2 revision.

        Raises:
            DeviceError: see read_holding_registers.
        """
        answer = await self._ask(
            lambda: self._client.read_device_information(read_code=_BASIC, device_id=_UNIT),
            "its identification",
        )
        # An object that is there twice is a list.
        return {number: value for number, value in answer.information.items() if isinstance(value, bytes)}

    async def _ask(self, request: Callable[[], Awaitable[Any]], what: str) -> Any:
        self.requests += 1
        try:
            answer = await request()
        except ModbusException:
            raise (self._timed_out(self._answer_s) if self._client.connected else self._hung_up()) from None
        finally:
            self._asked = None
        if answer.isError():
            code = answer.exception_code
            raise RefusedError(
                f"{self.peer}: refused {what} with Modbus exception {code} ({_REASONS.get(code, 'unknown')})",
                code,
            )
        return answer

    async def _connect(self) -> None:
        # Not client.connect(): that swallows the reason.
        try:
            await self._client.ctx.call_create()
        except (OSError, UnicodeError) as error:
            number = getattr(error, "errno", None) or 0
            cause = os.strerror(number) if number > 0 else error
            raise UnreachableError(
                f"{self.peer}: no connection: {cause}; check power, cable, address and port"
            ) from None

    def _close(self) -> None:
        self._client.close()

    def _hung_up(self) -> DeviceError:
        return HungUpError(
            f"{self.peer}: closed the connection without an answer; is another program connected to it?"
        )

    def _timed_out(self, timeout_s: float) -> DeviceError:
        if self._client.connected:
            return NoAnswerError(
                f"{self.peer}: connected, but the answers did not come within {timeout_s:g} s;"
                " is another program connected to it?"
            )
        return UnreachableError(
            f"{self.peer}: no connection within {timeout_s:g} s; check power, cable, address and port"
        )

    def _fail(self, error: DeviceError) -> None:
        """End the pending request, which pymodbus itself would leave to its time-out."""
        answer = self._client.ctx.response_future
        if self._asked is not None and not answer.done():
            answer.set_exception(error)

    def _on_pdu(self, sending: bool, pdu: ModbusPDU) -> ModbusPDU:
        if sending:
            function = pdu.function_code
            identification = (_ENCAPSULATED_INTERFACE, _READ_DEVICE_IDENTIFICATION)
            if (
                function not in (_READ_HOLDING_REGISTERS, _READ_INPUT_REGISTERS)
                and (function, pdu.sub_function_code) != identification
            ):
                raise ForbiddenFunctionError(f"{self.peer}: Modbus function {function} is not a read")
            self._asked = pdu
        return pdu

    def _on_packet(self, sending: bool, data: bytes) -> bytes:
        """Let only an answer to the pending request through to pymodbus.

        Its decoder raises inside asyncio's protocol on garbage, and waits for the time-out on an answer to
        another request.
        """
        if sending:
            return data
        if self._asked is None:
            return b""
        if not _is_answer(self._asked, data):
            self._fail(
                UnexpectedAnswerError(
                    f"{self.peer}: sent {data[:9].hex(' ')} ..., which does not answer the request;"
                    " is this the right device and port?"
                )
            )
            return b""
        return data

    def _on_connection(self, connected: bool) -> None:
        if not connected:
            self._fail(self._hung_up())


def _is_answer(asked: ModbusPDU, data: bytes) -> bool:
    """Whether `data`, complete or not yet, is the answer to the request, or its refusal."""
    tid, function = asked.transaction_id, asked.function_code
    refusal = struct.pack(">HHHBB", tid, 0, 3, _UNIT, function | 0x80)
    if refusal.startswith(data[: len(refusal)]):
        return True
    if function == _ENCAPSULATED_INTERFACE:
        return _is_identification(tid, data)
    size = 2 * asked.count
    answer = struct.pack(">HHHBBB", tid, 0, 3 + size, _UNIT, function, size)
    return answer.startswith(data[: len(answer)])


def _is_identification(tid: int, data: bytes) -> bool:
    """Whether `data`, complete or not yet, is a device identification of objects that end with it."""
    head = struct.pack(">HH", tid, 0)
    size = int.from_bytes(data[4:6], "big") if len(data) >= 6 else _IDENTIFICATION_SIZES.start
    body = bytes((_UNIT, _ENCAPSULATED_INTERFACE, _READ_DEVICE_IDENTIFICATION, _BASIC))
    if not (
        head.startswith(data[:4]) and size in _IDENTIFICATION_SIZES and body.startswith(data[6:][: len(body)])
    ):
        return False
    frame = data[6:]
    if len(frame) < size:
        return True
    position = _IDENTIFICATION_SIZES.start
    while position + 1 < size:
        position += 2 + frame[position + 1]
    return position == size


@asynccontextmanager
async def session(
    name: str,
    host: str,
    port: int,
    timeout_s: float,
    *,
    connect_s: float | None = None,
    answer_s: float | None = None,
) -> AsyncIterator[Session]:
    """Connect, hand out the session, close. `timeout_s` covers all of it; `name` is for messages.

    `connect_s` and `answer_s` bound the connection and each answer more narrowly.

    Raises:
        UnreachableError: no connection.
        NoAnswerError: the body did not end within `timeout_s`.
    """
    # No reconnection and no retry: the collector's next poll is both.
    opened = Session(name, host, port, answer_s or timeout_s)
    limit_s = connect_s or timeout_s
    try:
        async with asyncio.timeout(timeout_s):
            async with asyncio.timeout(connect_s):
                await opened._connect()
            limit_s = timeout_s
            yield opened
    except TimeoutError:
        raise opened._timed_out(limit_s) from None
    finally:
        opened._close()
