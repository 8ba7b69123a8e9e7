"""Cycles of points as they travel: one cycle in the making, and many packed for keeping."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from power_collector.contract import ClockSource


@dataclass(frozen=True, slots=True)
class Undated:
    """What is known of times that are not proven: they were `offset` seconds ahead of the boot's seconds."""

    boot_id: str
    offset: float


@dataclass(frozen=True, slots=True)
class Dating:
    """What is known of a boot's time: it is `offset` seconds ahead of the boot's seconds.

    Times are moved by whole intervals, so that they stay aligned.
    """

    boot_id: str
    offset: float
    source: ClockSource
    interval_s: int

    def shift_s(self, offset: float) -> int:
        """Return by how much times have to be moved that were made with `offset`."""
        return round((self.offset - offset) / self.interval_s) * self.interval_s

    def apply(self, lines: Sequence[str], undated: Undated) -> list[str]:
        """Return the lines with their right times; those of another boot keep theirs, as unverified."""
        if undated.boot_id != self.boot_id:
            return [_moved(line, 0, ClockSource.UNVERIFIED) for line in lines]
        shift = self.shift_s(undated.offset)
        return [_moved(line, shift, self.source) for line in lines]


def _moved(line: str, seconds: int, source: ClockSource) -> str:
    text, _, time = line.rpartition(" ")
    if text.startswith("collector_status "):
        text = text.replace(f"clock_source={ClockSource.NONE_YET:d}i", f"clock_source={source:d}i")
    return f"{text} {int(time) + seconds}"


@dataclass(frozen=True, slots=True)
class Cycle:
    """The points of one cycle as line protocol. `time` in seconds since 1970.

    `undated`: the time is the machine's and not known to be right; the points wait for a `Dating`.
    `again`: these have to replace points of earlier cycles, whose time came again or which tell of one day.
    """

    time: int
    lines: tuple[str, ...]
    undated: Undated | None = None
    again: bool = False

    def dated(self, dating: Dating) -> Cycle:
        """Return it with its right time; it must be one of the dating's boot."""
        if self.undated is None:
            return self
        time = self.time + dating.shift_s(self.undated.offset)
        return Cycle(time, tuple(dating.apply(self.lines, self.undated)))


@dataclass(frozen=True, slots=True)
class Batch:
    """Points packed for keeping: `data` is zlib-compressed line protocol, times in seconds since 1970.

    `undated` as in `Cycle`.
    """

    data: bytes
    points: int
    first_time: int
    last_time: int
    undated: Undated | None = None

    @classmethod
    def pack(cls, lines: Sequence[str], now: float, undated: Undated | None = None) -> Batch:
        """Pack lines; those without a time in seconds at their end count as made `now`."""
        times = [int(time) if (time := line.rpartition(" ")[2]).isdecimal() else int(now) for line in lines]
        return cls(zlib.compress("\n".join(lines).encode()), len(lines), min(times), max(times), undated)

    def dated(self, dating: Dating) -> Batch:
        """Return it with its right times.

        Raises:
            ValueError: the data is damaged.
        """
        if self.undated is None:
            return self
        return Batch.pack(dating.apply(self.lines(), self.undated), self.last_time)

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
