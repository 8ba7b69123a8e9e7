"""A fake device on loopback, and builders of what a MATE3s and a TriStar hold in their registers."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from power_collector.config import DeviceConfig

READS = (3, 4, 0x2B)
BASE = 40000


@dataclass
class FakeDevice:
    """Serves registers over Modbus TCP. Anything but a read is kept in `forbidden`, and fails the test."""

    registers: dict[int, int] = field(default_factory=dict)
    exceptions: dict[int, int] = field(default_factory=dict)
    """Register -> Modbus exception code for each request that touches it."""
    guards_passwords: bool = True
    """Whether reading what 64110 has beside its version, zone, clock and temperatures fails the test."""
    closes_after_answer: bool = False
    latency_s: float = 0.0
    mangle: Callable[[bytes], bytes | None] | None = None
    """Makes what is sent of the right answer; returns None: nothing is sent, the connection is closed."""
    script: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]] | None = None
    """Talks to the client in place of all the rest."""
    silent_after: int = 1_000_000
    """So many requests are answered, the rest is not."""
    requests: list[tuple[int, int, int]] = field(default_factory=list)
    forbidden: list[str] = field(default_factory=list)
    received: bytes = b""
    connections: int = 0
    open: int = 0
    port: int = 0
    forbidden_registers: set[int] = field(default_factory=set)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def blocks(self, *blocks: list[int], start: int = BASE) -> None:
        """Put registers one behind the other."""
        self.forbidden_registers = set()
        for one in blocks:
            self.registers.update(enumerate(one, start))
            if self.guards_passwords and one[:1] == [64110]:
                allowed = {0, 1, 2, 3, 4, 271, *range(392, 420)} if len(one) == 422 else {0, 1}
                self.forbidden_registers |= {start + n for n in range(len(one)) if n not in allowed}
            start += len(one)

    def answer(self, request: bytes) -> bytes:
        function = request[7]
        if function not in READS:
            self.forbidden.append(f"function {function}: {request.hex(' ')}")
        address, count = struct.unpack(">HH", request[8:12])
        self.requests.append((function, address, count))
        asked = range(address, address + count)
        if touched := set(asked) & self.forbidden_registers:
            self.forbidden.append(f"registers {sorted(touched)}")
        code = next((self.exceptions[a] for a in asked if a in self.exceptions), None)
        if code is None and not all(a in self.registers for a in asked):
            code = 2
        if code is not None:
            return request[:4] + struct.pack(">HBBB", 3, request[6], function | 0x80, code)
        body = struct.pack(f">{count}H", *(self.registers[a] for a in asked))
        return request[:4] + struct.pack(">HBBB", 3 + len(body), request[6], function, len(body)) + body

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (task := asyncio.current_task()) is not None:
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        self.connections += 1
        self.open += 1
        try:
            if self.script is not None:
                await self.script(reader, writer)
                return
            while request := await reader.read(260):
                self.received += request
                answer = self.answer(request)
                if len(self.requests) > self.silent_after:
                    continue
                if self.latency_s:
                    await asyncio.sleep(self.latency_s)
                sent = answer if self.mangle is None else self.mangle(answer)
                if sent is None:
                    break
                writer.write(sent)
                if self.closes_after_answer:
                    break
            await writer.drain()
        except ConnectionError:
            pass
        finally:
            self.open -= 1
            writer.close()


Serve = Callable[..., Awaitable[FakeDevice]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start fake devices; at the end each must have seen nothing but reads of allowed registers."""
    devices: list[FakeDevice] = []
    servers: list[asyncio.Server] = []

    async def start(**options: Any) -> FakeDevice:
        device = FakeDevice(**options)
        server = await asyncio.start_server(device.handle, "127.0.0.1", 0)
        device.port = server.sockets[0].getsockname()[1]
        devices.append(device)
        servers.append(server)
        return device

    yield start
    for server in servers:
        server.close()
    for device in devices:
        for task in device.tasks:
            task.cancel()
        await asyncio.gather(*device.tasks, return_exceptions=True)
    await asyncio.sleep(0)
    for device in devices:
        assert device.forbidden == []


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], Awaitable[None]]:
    """Wait until a condition holds, at most ten seconds."""

    async def wait(condition: Callable[[], object]) -> None:
        for _ in range(10_000):
            if condition():
                return
            await asyncio.sleep(0.001)
        pytest.fail("it did not come to that within ten seconds")

    return wait


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def block(model_id: int, length: int, values: Mapping[int, int] | None = None, fill: int = 0) -> list[int]:
    """A block with `values` by offset (ID 0, length 1), negative ones as two's complement."""
    registers = [model_id, length] + [fill] * length
    for offset, value in (values or {}).items():
        if offset < len(registers):
            registers[offset] = value & 0xFFFF
    return registers


def inverter(port: int, length: int = 59, **changes: int) -> list[int]:
    """A 64115 with numbers of its own: 52.4 V, 1.2 kW out on both legs."""
    values = {
        2: port,
        3: -1,
        4: 0,
        5: 0,
        6: -1,
        7: 5,
        8: 0,
        13: 120,
        14: 6,
        15: 1,
        20: 121,
        21: 2,
        22: 0,
        23: 0x20,
        24: 524,
        25: 576,
        28: 40,
        34: -3,
        36: 600,
        42: -1,
        43: 15,
        47: 123,
        52: 45,
        53: 67,
        54: 12,
        57: 3,
        58: 11,
        59: 9,
    }
    values |= {int(offset.removeprefix("at")): value for offset, value in changes.items()}
    return block(64115, length, values)


def inverter_single(port: int, length: int = 47) -> list[int]:
    """A 64117: 51.6 V, 0.7 kW out."""
    return block(
        64117,
        length,
        {2: port, 3: -1, 4: 0, 5: 0, 6: -1, 7: 6, 14: 2, 17: 516, 27: 21, 35: -1, 42: 7, 46: 6, 47: 1},
    )


def ac(model_id: int = 102) -> list[int]:
    """A 101/102/103: 21 A, 70 W that are really 700, 52.8 V."""
    return block(model_id, 50, {2: 21, 6: 0, 14: 70, 15: -2, 29: 528, 30: -1})


def system(**changes: int) -> list[int]:
    """A 64110: 2026-03-29 13:05:59 at -8 h, 21 and -4 degrees. Its passwords are 0xDEAD."""
    clock = {392: 2026, 393: 3, 394: 29, 395: 13, 396: 5, 397: 59}
    values = clock | {398: 21, 399: -4, 400: 0, 271: -800, 419: -2}
    values |= {int(offset.removeprefix("at")): value for offset, value in changes.items()}
    passwords = [*range(13, 21), *range(70, 78), *range(166, 211), *range(231, 247)]
    return block(64110, 420, dict.fromkeys(passwords, 0xDEAD) | values)


MARK = [0x5375, 0x6E53]
COMMON = block(1, 65, dict.fromkeys(range(2, 66), 0x4F42))


def chain(*inverters: list[int], end: list[int] | None = None, **system_changes: int) -> list[list[int]]:
    """Return a MATE3s' blocks; behind each inverter comes its configuration (64116)."""
    pairs = [one for inverter_block in inverters for one in (inverter_block, block(64116, 89, fill=7))]
    return [
        MARK,
        COMMON,
        system(**system_changes),
        block(64120, 27),
        ac(),
        block(64255, 56),
        *pairs,
        [0xFFFF, 0] if end is None else end,
    ]


@dataclass(frozen=True)
class Build:
    """The builders, for tests, which cannot import this file."""

    block = staticmethod(block)
    inverter = staticmethod(inverter)
    inverter_single = staticmethod(inverter_single)
    ac = staticmethod(ac)
    system = staticmethod(system)
    chain = staticmethod(chain)
    common = COMMON
    mark = MARK


@pytest.fixture(scope="session")
def build() -> Build:
    return Build()


@dataclass
class FakeClock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def outback_config() -> Callable[..., DeviceConfig]:
    def config(port: int, inverters: int = 3, timeout_s: float = 2.0) -> DeviceConfig:
        return DeviceConfig(
            name="mate3s",
            driver="outback",
            host="127.0.0.1",
            port=port,
            inverters=inverters,
            timeout_s=timeout_s,
        )

    return config


@pytest.fixture
def charger_config() -> Callable[..., DeviceConfig]:
    def config(port: int, **options: object) -> DeviceConfig:
        values: dict[str, object] = {"driver": "tristar-mppt-600v", "timeout_s": 2.0} | options
        return DeviceConfig.model_validate({"name": "sc1", "host": "127.0.0.1", "port": port} | values)

    return config


def half(value: float) -> int:
    """A number as binary16."""
    number: int = struct.unpack(">H", struct.pack(">e", value))[0]
    return number


def charger_600v(firmware: int = 0x19, **changes: int) -> list[int]:
    """The 80 registers of a 600V at noon: 54.5 V, 20 A, 1090 W, no remote sensor."""
    values = {
        0x04: firmware,
        0x18: half(54.5),
        0x19: half(54.25),
        0x1A: half(54.5),
        0x1B: half(310.0),
        0x1C: half(20.0),
        0x1D: half(3.6),
        0x23: half(41.0),
        0x24: half(float("nan")),
        0x25: half(25.0),
        0x2A: 1,
        0x2B: 2,
        0x2C: 0x0100,
        0x2D: 0x0003,
        0x2E: 0x0001,
        0x2F: 0x0000,
        0x31: 6,
        0x32: 5,
        0x33: half(57.5),
        0x39: half(4096.0),
        0x3A: half(1090.0),
        0x3B: half(1120.0),
        0x40: half(50.5),
        0x41: half(57.5),
        0x42: half(350.0),
        0x43: half(100.0),
        0x44: 5400,
        0x46: half(2500.0),
        0x4D: 60,
        0x4E: 0,
        0x4F: 120,
    }
    values |= {int(register.removeprefix("at"), 16): value for register, value in changes.items()}
    return [values.get(register, 0) & 0xFFFF for register in range(80)]


def charger_150v(**changes: int) -> list[int]:
    """The 80 registers of a 150 V one: V_PU 180, I_PU 80; 54 V, 20 A, no remote sensor."""
    values = {
        0x00: 180,
        0x02: 80,
        0x04: 0x12,
        0x18: round(54 * 0x8000 / 180),
        0x1B: round(90 * 0x8000 / 180),
        0x1C: round(20 * 0x8000 / 80),
        0x1D: -5,
        0x23: -7,
        0x24: 0x80,
        0x25: 25,
        0x2B: 4711,
        0x2C: 0x0004,
        0x2D: 0xBEEF,
        0x2F: 0x0008,
        0x32: 6,
        0x39: 12345,
        0x3A: round(1080 * 0x20000 / 180 / 80),
        0x43: 1234,
        0x44: 6540,
        0x4D: 61,
    }
    values |= {int(register.removeprefix("at"), 16): value for register, value in changes.items()}
    return [values.get(register, 0) & 0xFFFF for register in range(80)]


@dataclass(frozen=True)
class BuildCharger:
    """The chargers' builders."""

    half = staticmethod(half)
    of_600v = staticmethod(charger_600v)
    of_150v = staticmethod(charger_150v)


@pytest.fixture(scope="session")
def build_charger() -> BuildCharger:
    return BuildCharger()
