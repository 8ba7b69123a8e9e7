"""Time, injected: what time it is, how long something took, waiting, and the aligned ticks of the loop."""

from __future__ import annotations

import asyncio
import math
import time
from pathlib import Path
from typing import Protocol

CLOCK_SYNCHRONISED = 1
CLOCK_UNVERIFIED = 3
"""Values of `collector_status.clock_source` in the data contract."""

_TIMESYNC_MARK = Path("/run/systemd/timesync/synchronized")


class Clock(Protocol):
    """What the collector asks about time; tests give it one that takes no time."""

    def wall(self) -> float:
        """Return seconds since 1970 (UTC); may step when the clock is set."""
        ...

    def monotonic(self) -> float:
        """Return seconds since some moment; never steps, and counts the time spent suspended."""
        ...

    def source(self) -> int:
        """Return where the wall clock's time comes from: `collector_status.clock_source`."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class SystemClock:
    """The machine's own clock."""

    def wall(self) -> float:
        """Return seconds since 1970 (UTC)."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds since the boot (Linux), else since some moment."""
        if hasattr(time, "CLOCK_BOOTTIME"):
            return time.clock_gettime(time.CLOCK_BOOTTIME)
        return time.monotonic()

    def source(self) -> int:
        """Return 1 once systemd-timesyncd has set the clock since the boot, else 3."""
        return CLOCK_SYNCHRONISED if _TIMESYNC_MARK.exists() else CLOCK_UNVERIFIED

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


def aligned(now: float, interval_s: int) -> int:
    """Return the last whole multiple of `interval_s` at or before `now` (seconds since 1970)."""
    return math.floor(now / interval_s) * interval_s


def next_tick(now: float, interval_s: int, previous: int | None) -> int:
    """Return the next aligned tick after `now`, never `previous` twice.

    A sleep may end a hair early by the wall clock; then `previous` still lies ahead and must not be taken
    again. A clock that was set back by an interval or more starts anew from where it stands.
    """
    tick = aligned(now, interval_s) + interval_s
    if previous is not None and 0 <= previous - tick < interval_s:
        return previous + interval_s
    return tick
