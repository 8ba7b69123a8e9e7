"""A small Modbus TCP server that only reads, and that can be made to fail like real devices do."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
import struct
from collections.abc import Callable
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

logger = logging.getLogger(__name__)

ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE, BUSY, NO_SUCH_UNIT = 1, 2, 3, 6, 11
UNIT = 1
_HEADER = struct.Struct(">HHHB")
_READS = (3, 4)
_IDENTIFY, _MEI_IDENTIFICATION = 0x2B, 0x0E

FaultName = Literal[
    "slow",
    "silent",
    "refusing",
    "reset",
    "hang-up",
    "exception",
    "busy",
    "nan",
    "garbage",
    "wrong-transaction",
    "truncated",
    "short",
]


class Behaviour(BaseModel):
    """How a device behaves on the wire."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fault: FaultName | None = None
    """slow: answers `seconds` late; silent: accepts and never answers; refusing: does not listen;
    reset: resets the connection at a request; hang-up: closes it without an answer; exception: answers
    `code`; busy: exception 6; nan: no temperature is there; garbage: random bytes; wrong-transaction:
    another transaction's number; truncated: half an answer, then nothing; short: one register too few."""
    seconds: float = Field(default=1.0, ge=0)
    code: int = Field(default=4, ge=1, le=255)
    latency_ms: float = Field(default=0, ge=0)
    """Each answer takes so long."""
    keep_open: bool | None = None
    """Whether the connection stays open after an answer; None: as the real device does."""
    one_client: bool = False
    """A connection that is made while another is open is reset."""


class ModbusError(Exception):
    """The answer is an exception with this code."""

    def __init__(self, code: int) -> None:
        """Keep the code."""
        super().__init__(f"Modbus exception {code}")
        self.code = code


class Image(Protocol):
    """The registers of a device."""

    traits: Any

    def identity(self) -> list[bytes] | None:
        """Return vendor, product code and revision; None where the device does not tell."""
        ...

    def read(self, time: float, address: int, count: int, *, nan: bool) -> list[int]:
        """Return registers or raise ModbusError."""
        ...


Record = Callable[[dict[str, Any]], None]


class DeviceServer:
    """Serves one device's image on one address; every request is told to `record`."""

    def __init__(
        self,
        *,
        name: str,
        image: Image,
        closes: bool,
        now: Callable[[], float],
        record: Record,
        secrets: Callable[[int, int], bool] | None = None,
    ) -> None:
        """Make a server that does not listen yet.

        `closes`: the real device closes after each answer. `secrets`: tells registers that nobody may read.
        """
        self.name = name
        self.image = image
        self.behaviour = Behaviour()
        self._closes = closes
        self._now = now
        self._record = record
        self._secrets = secrets
        self._host, self.port = "", 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections = 0

    async def start(self, host: str, port: int) -> None:
        """Listen (port 0: a free one, then in `port`).

        Raises:
            OSError: the address cannot be had; the message names the remedy.
        """
        self._host, self.port = host, port
        await self._listen()

    async def behave(self, behaviour: Behaviour) -> None:
        """Change the behaviour at once; open connections of a device that refuses are closed."""
        self.behaviour = behaviour
        if behaviour.fault == "refusing":
            await self.stop()
        elif self._server is None:
            await self._listen()

    async def stop(self) -> None:
        """Stop listening and close all connections."""
        if self._server is not None:
            self._server.close()
            self._server = None
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self) -> None:
        try:
            self._server = await asyncio.start_server(self._connected, self._host, self.port)
        except OSError as error:
            raise OSError(
                error.errno,
                f"{self.name} cannot listen on {self._host}:{self.port} ({error.strerror}): bind to "
                "an address of this machine, and give each device a port of its own there",
            ) from error
        self.port = self._server.sockets[0].getsockname()[1]
        logger.debug("%s listens on %s:%d", self.name, self._host, self.port)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if self.behaviour.one_client and self._tasks:
            self._record(self._entry() | {"fault": "one client at a time"})
            writer.transport.abort()
            return
        self._tasks.add(task)
        self._connections += 1
        number = self._connections
        try:
            # Only stop() cancels; asyncio 3.11 would log a handler that ends by it.
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                while await self._one_request(reader, writer, number):
                    pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _one_request(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int
    ) -> bool:
        """Answer a request of this connection, counted from 1; return whether it stays open."""
        header = await reader.readexactly(_HEADER.size)
        transaction, protocol, length, unit = _HEADER.unpack(header)
        if protocol != 0 or not 2 <= length <= 254:
            self._record(self._entry() | {"violation": f"no Modbus TCP frame: {header.hex()}"})
            return False
        pdu = await reader.readexactly(length - 1)
        behaviour = self.behaviour
        delay = behaviour.latency_ms / 1000 + (behaviour.seconds if behaviour.fault == "slow" else 0)
        if delay:
            await asyncio.sleep(delay)
        entry, answer = self._answer(unit, pdu)
        entry |= {"connection": connection, "open": len(self._tasks)}
        frame = _HEADER.pack(transaction, 0, len(answer) + 1, unit) + answer
        if reader.at_eof():
            self._record(entry | {"fault": "the client has gone"})
            return False
        if behaviour.fault in (None, "slow", "nan"):
            self._record(entry)
            writer.write(frame)
            await writer.drain()
            return self._keeps_open(behaviour)
        entry.pop("registers", None)
        self._record(entry | {"fault": behaviour.fault})
        return await self._fail(behaviour, reader, writer, frame)

    async def _fail(
        self,
        behaviour: Behaviour,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        frame: bytes,
    ) -> bool:
        transaction, _, _, unit = _HEADER.unpack_from(frame)
        function = frame[_HEADER.size] & 0x7F
        match behaviour.fault:
            case "silent":
                await reader.read()
                return False
            case "reset":
                # A linger time of 0 makes closing a reset.
                connection = writer.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
                return False
            case "hang-up":
                return False
            case "exception" | "busy":
                code = BUSY if behaviour.fault == "busy" else behaviour.code
                frame = _HEADER.pack(transaction, 0, 3, unit) + bytes((function | 0x80, code))
            case "garbage":
                frame = random.Random(transaction).randbytes(len(frame))
            case "wrong-transaction":
                frame = struct.pack(">H", transaction ^ 0x5555) + frame[2:]
            case "truncated":
                writer.write(frame[: len(frame) // 2])
                await writer.drain()
                await reader.read()
                return False
            case "short":
                data = frame[_HEADER.size + 2 : -2]
                frame = _HEADER.pack(transaction, 0, len(data) + 3, unit)
                frame += bytes((function, len(data))) + data
        writer.write(frame)
        await writer.drain()
        return self._keeps_open(behaviour)

    def _keeps_open(self, behaviour: Behaviour) -> bool:
        return not self._closes if behaviour.keep_open is None else behaviour.keep_open

    def _entry(self) -> dict[str, Any]:
        return {"time": self._now(), "device": self.name}

    def _answer(self, unit: int, pdu: bytes) -> tuple[dict[str, Any], bytes]:
        """Return what to record, and the answer."""
        function = pdu[0]
        entry = self._entry() | {"function": function}
        try:
            if function in _READS:
                return self._registers(entry, unit, pdu)
            if function == _IDENTIFY and pdu[1:2] == bytes((_MEI_IDENTIFICATION,)):
                return self._identification(entry, pdu)
            entry["violation"] = f"function {function} is not one that reads: {pdu.hex()}"
            code = ILLEGAL_FUNCTION
        except ModbusError as error:
            code = error.code
        return entry | {"exception": code}, bytes((function | 0x80, code))

    def _registers(self, entry: dict[str, Any], unit: int, pdu: bytes) -> tuple[dict[str, Any], bytes]:
        if len(pdu) != 5:
            raise ModbusError(ILLEGAL_VALUE)
        address, count = struct.unpack_from(">HH", pdu, 1)
        entry |= {"address": address, "count": count}
        if unit != UNIT:
            raise ModbusError(NO_SUCH_UNIT)
        if not 1 <= count <= 125:
            raise ModbusError(ILLEGAL_VALUE)
        if count > 100:
            entry["violation"] = f"{count} registers in one request; real devices are unhappy above 100"
        if self._secrets is not None and self._secrets(address, count):
            entry["violation"] = "passwords or e-mail addresses were read"
        registers = self.image.read(entry["time"], address, count, nan=self.behaviour.fault == "nan")
        entry["registers"] = registers
        return entry, struct.pack(f">BB{count}H", pdu[0], 2 * count, *registers)

    def _identification(self, entry: dict[str, Any], pdu: bytes) -> tuple[dict[str, Any], bytes]:
        identity = self.image.identity()
        if identity is None:
            raise ModbusError(ILLEGAL_FUNCTION)
        if len(pdu) != 4:
            raise ModbusError(ILLEGAL_VALUE)
        entry["identification"] = [part.decode() for part in identity]
        answer = bytes((_IDENTIFY, _MEI_IDENTIFICATION, pdu[2], 1, 0, 0, len(identity)))
        for number, part in enumerate(identity):
            answer += bytes((number, len(part))) + part
        return entry, answer
