"""Points whose times become known later."""

from __future__ import annotations

import pytest

from power_collector.batch import Batch, Cycle, Dating, Undated
from power_collector.contract import ClockSource

LINES = ("m,device=a f=1.5 1000", "collector_status clock_source=0i,points=2i 1000")
HERE = Undated("boot-1", 100.0)


def dating(offset: float, boot_id: str = "boot-1") -> Dating:
    return Dating(boot_id, offset, ClockSource.SYNCHRONISED, 15)


@pytest.mark.parametrize(
    ("offset", "time"), [(100.0, 1000), (107.4, 1000), (107.6, 1015), (36_100, 37_000), (3, 910)]
)
def test_times_move_by_whole_intervals_and_say_whose_they_are(offset: float, time: int) -> None:
    cycle = Cycle(1000, LINES, HERE).dated(dating(offset))
    assert cycle.time == time
    assert cycle.undated is None
    assert cycle.lines == (f"m,device=a f=1.5 {time}", f"collector_status clock_source=1i,points=2i {time}")


def test_another_boots_times_stay_as_unverified() -> None:
    batch = Batch.pack(LINES, 0, HERE).dated(dating(36_100, "boot-2"))
    assert batch.lines() == [LINES[0], "collector_status clock_source=3i,points=2i 1000"]
    assert (batch.first_time, batch.last_time, batch.undated) == (1000, 1000, None)


def test_what_is_dated_stays_as_it_is() -> None:
    batch, cycle = Batch.pack(LINES, 0), Cycle(1000, LINES)
    assert batch.dated(dating(36_100)) is batch
    assert cycle.dated(dating(36_100)) is cycle
