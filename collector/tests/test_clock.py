from __future__ import annotations

import asyncio
import time

import pytest

from power_collector.clock import SystemClock, aligned, next_tick


@pytest.mark.parametrize(
    ("now", "previous", "tick"),
    [
        (1000.0, None, 1005),
        (1004.9, None, 1005),
        (1005.0, 1005, 1020),
        (1004.999, 1005, 1020),  # the sleep ended a hair early: 1005 must not come twice
        (1041.0, 1005, 1050),  # a cycle longer than its interval leaves ticks out
        (500.0, 1005, 510),  # the clock was set back: begin anew
        (990.0, 1005, 1005 + 15),  # set back by exactly less than an interval: still not twice
    ],
)
def test_the_next_tick_is_aligned_and_never_the_previous_one(
    now: float, previous: int | None, tick: int
) -> None:
    assert next_tick(now, 15, previous) == tick


def test_aligned_is_the_last_multiple_of_the_interval() -> None:
    assert aligned(1019.9, 15) == 1005
    assert aligned(1020.0, 15) == 1020


async def test_the_system_clock_goes_forward() -> None:
    clock = SystemClock()
    before = clock.monotonic()
    await clock.sleep(0)
    assert clock.monotonic() >= before
    assert abs(clock.wall() - time.time()) < 5
    assert clock.source() in (1, 3)


def test_the_system_clock_works_without_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(time, "CLOCK_BOOTTIME", raising=False)
    assert SystemClock().monotonic() == pytest.approx(time.monotonic(), abs=1)
    asyncio.run(SystemClock().sleep(0))
