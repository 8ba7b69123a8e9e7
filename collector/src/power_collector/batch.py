"""Cycles of points as they travel: one cycle in the making, and many packed for keeping."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cycle:
    """The points of one cycle as line protocol. `time` in seconds since 1970."""

    time: int
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """Points packed for keeping: `data` is zlib-compressed line protocol, times in seconds since 1970."""

    data: bytes
    points: int
    first_time: int
    last_time: int

    @classmethod
    def pack(cls, lines: Sequence[str], now: float) -> Batch:
        """Pack lines; those without a time in seconds at their end count as made `now`."""
        times = [int(time) if (time := line.rpartition(" ")[2]).isdecimal() else int(now) for line in lines]
        return cls(zlib.compress("\n".join(lines).encode()), len(lines), min(times), max(times))

    def lines(self) -> list[str]:
        """Return the points as line protocol.

        Raises:
            ValueError: the data is damaged.
        """
        try:
            text = zlib.decompress(self.data).decode()
        except (zlib.error, TypeError) as error:
            raise ValueError(f"a damaged batch of {self.points} points: {error}") from None
        return text.split("\n") if text else []
