"""Time, injected: the machine's clocks, and waiting. The clock is read and never set."""

from __future__ import annotations

import asyncio
import ctypes
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Protocol

_STA_UNSYNC = 0x0040
"""Of the kernel's `timex.status`: the clock is not synchronised (adjtimex(2))."""


class Clock(Protocol):
    """What the collector asks about time; tests give it one that takes no time."""

    @property
    def boot_id(self) -> str:
        """Which boot of the machine `monotonic` counts from."""
        ...

    def wall(self) -> float:
        """Return seconds since 1970 (UTC) as the machine has it; may be wrong, and steps when it is set."""
        ...

    def monotonic(self) -> float:
        """Return seconds since the boot; never steps, and counts the time spent suspended."""
        ...

    def synchronised(self) -> bool:
        """Return whether `wall` is kept by a time server at this moment."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class SystemClock:
    """The machine's own clock."""

    @cached_property
    def boot_id(self) -> str:
        """Return the kernel's random name of this boot; where it tells none, one of this process alone."""
        try:
            return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        except OSError:
            return str(uuid.uuid4())

    def wall(self) -> float:
        """Return seconds since 1970 (UTC)."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds since the boot (Linux), else since some moment."""
        if hasattr(time, "CLOCK_BOOTTIME"):
            return time.clock_gettime(time.CLOCK_BOOTTIME)
        return time.monotonic()

    def synchronised(self) -> bool:
        """Return whether the kernel says so."""
        return kernel_is_synchronised()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


class Timex(ctypes.Structure):
    """The kernel's `struct timex`: as far as it is read, and room for the rest.

    `modes` says what is to be changed. It stays 0: nothing.
    """

    _fields_: ClassVar = [
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_long * 32),
    ]


def kernel_is_synchronised(adjtimex: Callable[..., int] | None = None) -> bool:
    """Return whether the kernel calls its clock synchronised; False where it cannot be asked."""
    if adjtimex is None:
        adjtimex = getattr(ctypes.CDLL(None), "adjtimex", None)
    if adjtimex is None:
        return False
    answer = Timex()
    return adjtimex(ctypes.byref(answer)) >= 0 and not answer.status & _STA_UNSYNC


def utc_text(time: float) -> str:
    """Return a time as people read it, in UTC."""
    try:
        return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{time:.0f} s since 1970"
