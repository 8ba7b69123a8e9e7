"""The way to one host: one connection at a time, with pauses, and only so many."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from power_collector.devices import modbus
from power_collector.devices.base import DeviceError

MAX_CONNECTIONS = 5
PAUSE_S = 0.2
"""Between a connection and the next one to the same host."""
ANSWER_S = 1.5
WHOLE_S = 10.0
"""For all that is asked in one connection: a MATE3s with 10 inverters needs some 50 requests."""

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[object]]


class SpentError(DeviceError):
    """The host has been connected to often enough."""


class Line:
    """Connects to one host. `connections` counts those that came about, `requests` what was asked."""

    def __init__(self, host: str, *, connect_s: float, sleep: Sleep) -> None:
        """Connect to nothing yet; a connection may take `connect_s` seconds to come about."""
        self.host = host
        self.sleep = sleep
        self.connections = 0
        self.requests = 0
        self._connect_s = connect_s
        self._used = False

    @property
    def is_spent(self) -> bool:
        """Whether the host has been connected to often enough."""
        return self.connections >= MAX_CONNECTIONS

    async def ask(self, port: int, question: Callable[[modbus.Session], Awaitable[T]]) -> T:
        """Connect, ask, close.

        Raises:
            DeviceError: what the session raises; SpentError after five connections.
        """
        if self.is_spent:
            raise SpentError(f"connected {MAX_CONNECTIONS} times: left alone")
        if self._used:
            await self.sleep(PAUSE_S)
        self._used = True
        async with modbus.session(
            "device", self.host, port, WHOLE_S, connect_s=self._connect_s, answer_s=ANSWER_S
        ) as session:
            self.connections += 1
            try:
                return await question(session)
            finally:
                self.requests += session.requests
