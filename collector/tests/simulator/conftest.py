"""A ranch of seven devices, and a reader of hand-made Modbus frames."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from power_collector.config import Config, DeviceConfig
from power_collector.simulator import SimulatedRoom

ZONE = ZoneInfo("America/Los_Angeles")
Ask = Callable[..., Awaitable[bytes]]
Registers = Callable[..., Awaitable[list[int]]]


@pytest.fixture
def zone() -> ZoneInfo:
    return ZONE


@pytest.fixture
def noon() -> float:
    return datetime(2026, 11, 24, 12, tzinfo=ZONE).timestamp()


@pytest.fixture
def config() -> Config:
    chargers = [
        DeviceConfig(name=f"sc{i}", driver="tristar-mppt-600v", host=f"192.168.1.10{i}", port=1025)
        for i in range(1, 6)
    ]
    return Config(
        devices=[
            DeviceConfig(name="mate3s", driver="outback", host="192.168.1.100", port=1025, inverters=3),
            *chargers,
            DeviceConfig(name="small", driver="tristar-mppt", host="192.168.1.107"),
        ]
    )


@pytest.fixture
def make_room(config: Config, noon: float) -> Callable[..., SimulatedRoom]:
    def make(**options: object) -> SimulatedRoom:
        defaults = {"bind": "127.0.0.1", "ephemeral": True, "zone": ZONE, "now": lambda: noon}
        return SimulatedRoom(config, **{**defaults, **options})  # type: ignore[arg-type]

    return make


@pytest.fixture
def port_of() -> Callable[[SimulatedRoom, str], int]:
    return lambda room, name: next(d.port for d in room.config.devices if d.name == name)


@pytest.fixture
def ask(port_of: Callable[[SimulatedRoom, str], int]) -> Ask:
    """Send frames over one connection; return all that comes back, until it closes or is silent."""

    async def ask(room: SimulatedRoom, name: str, *frames: bytes, wait_s: float = 2.0) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(room, name))
        try:
            received = b""
            async with asyncio.timeout(wait_s):
                for frame in frames:
                    writer.write(frame)
                    header = await reader.readexactly(6)
                    received += header + await reader.readexactly(int.from_bytes(header[4:6], "big"))
            return received
        finally:
            writer.close()

    return ask


@pytest.fixture
def read(ask: Ask) -> Registers:
    """Read registers with function 3 in a connection of its own."""

    async def read(room: SimulatedRoom, name: str, address: int, count: int) -> list[int]:
        frame = struct.pack(">HHHBBHH", 7, 0, 6, 1, 3, address, count)
        answer = await ask(room, name, frame)
        assert answer[:9] == struct.pack(">HHHBBB", 7, 0, 3 + 2 * count, 1, 3, 2 * count)
        return list(struct.unpack(f">{count}H", answer[9:]))

    return read
