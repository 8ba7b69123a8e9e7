"""The lower bound of a cycle: the hub's own requests, sent by nothing but a blocking socket."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Sequence

FUNCTION = 4
"""The room answers 3 and 4 alike; the collector asks by 3, so that the room's log tells the two apart."""


def read_ms(port: int, requests: Sequence[tuple[int, int]]) -> float:
    """Connect, ask for each (address, count) in turn, close; return how long it took, in ms."""
    begin = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number, (address, count) in enumerate(requests, start=1):
            connection.sendall(struct.pack(">HHHBBHH", number, 0, 6, 1, FUNCTION, address, count))
            _receive(connection, 9 + 2 * count)
    return (time.perf_counter() - begin) * 1000


def _receive(connection: socket.socket, size: int) -> None:
    while size:
        part = connection.recv(size)
        if not part:
            raise RuntimeError("the simulated hub has closed the connection")
        size -= len(part)
