"""The machine's clock: read, and never set."""

from __future__ import annotations

import ast
import asyncio
import ctypes
import time
from pathlib import Path

import pytest

import power_collector
from power_collector.clock import SystemClock, Timex, kernel_is_synchronised, utc_text

PACKAGE = Path(power_collector.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
SETS_A_CLOCK = {
    "clock_settime",
    "clock_settime_ns",
    "settimeofday",
    "stime",
    "adjtime",
    "clock_adjtime",
    "syscall",
}


async def test_the_system_clock_goes_forward() -> None:
    clock = SystemClock()
    before = clock.monotonic()
    await clock.sleep(0)
    assert clock.monotonic() >= before
    assert abs(clock.wall() - time.time()) < 5
    assert clock.synchronised() in (True, False)


def test_it_counts_from_a_boot_that_has_a_name() -> None:
    clock = SystemClock()
    assert len(clock.boot_id) == 36
    assert clock.boot_id == SystemClock().boot_id
    assert clock.monotonic() == pytest.approx(time.clock_gettime(time.CLOCK_BOOTTIME), abs=1)


def test_the_system_clock_works_without_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(time, "CLOCK_BOOTTIME", raising=False)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError()))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    clock = SystemClock()
    assert clock.monotonic() == pytest.approx(time.monotonic(), abs=1)
    assert clock.boot_id == clock.boot_id != SystemClock().boot_id  # another process's times are not ours
    assert not clock.synchronised()
    asyncio.run(clock.sleep(0))


@pytest.mark.parametrize(
    ("state", "status", "synchronised"),
    [
        (0, 0x2001, True),  # STA_PLL and STA_NANO, as timesyncd leaves it
        (5, 0x0040, False),  # TIME_ERROR: STA_UNSYNC, as at boot
        (5, 0x0041, False),
        (5, 0x0000, True),  # an error of something else, such as a PPS signal
        (-1, 0x0000, False),  # a filter of system calls
    ],
)
def test_the_kernel_is_asked_and_nothing_is_changed(state: int, status: int, synchronised: bool) -> None:
    asked: list[bytes] = []

    def adjtimex(pointer: object) -> int:
        timex = pointer._obj  # type: ignore[attr-defined]
        assert isinstance(timex, Timex)
        asked.append(bytes(timex))
        timex.status = status
        return state

    assert kernel_is_synchronised(adjtimex) is synchronised
    assert asked == [bytes(ctypes.sizeof(Timex))]  # all zero: modes too


def test_the_kernels_structure_fits() -> None:
    assert ctypes.sizeof(Timex) >= 208
    if ctypes.sizeof(ctypes.c_long) == 8:
        assert Timex.status.offset == 40


def faults(source: str, *, is_clock: bool = False) -> set[str]:
    """Name what sets a clock, or could: only clock.py may call adjtimex, and never with `modes`."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            words = {node.value} if node.value.isidentifier() else set()
        elif isinstance(node, ast.Attribute):
            words = {node.attr}
        elif isinstance(node, ast.Name):
            words = {node.id}
        elif isinstance(node, ast.alias):
            words = set(node.name.split("."))
        else:
            continue
        found |= words & SETS_A_CLOCK
        found |= words & {"subprocess", "timedatectl", "hwclock"}
        if not is_clock:
            found |= words & {"adjtimex", "ctypes", "Timex"}
        elif isinstance(node, ast.Attribute):
            found |= words & {"modes"}
    return found


@pytest.mark.parametrize("path", SOURCES, ids=[str(path.relative_to(PACKAGE)) for path in SOURCES])
def test_the_package_sets_no_clock(path: Path) -> None:
    assert faults(path.read_text(encoding="utf-8"), is_clock=path.name == "clock.py") == set()


@pytest.mark.parametrize(
    ("source", "is_clock"),
    [
        ("time.clock_settime(time.CLOCK_REALTIME, 0)", True),
        ("from time import clock_settime", False),
        ("getattr(libc, 'settimeofday')(None)", True),
        ("answer.modes = 1", True),
        ("import ctypes", False),
        ("libc.adjtimex(x)", False),
        ("subprocess.run(['date', '-s', 'now'])", False),
        ("libc.syscall(159, x)", True),
    ],
)
def test_the_check_of_the_package_sees(source: str, is_clock: bool) -> None:
    assert faults(source, is_clock=is_clock)


def test_a_time_that_is_none_can_be_told() -> None:
    assert utc_text(0) == "1970-01-01 00:00:00 UTC"
    assert utc_text(1e18) == "1000000000000000000 s since 1970"
