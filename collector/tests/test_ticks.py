"""The times of cycles, whatever happens to the clock."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from power_collector.clock import utc_text
from power_collector.ticks import Ticks, aligned, nearest

NOW = 1_800_000_000
INTERVAL = 15


class Life:
    """Cycles one after the other, on a wall clock that is `offset` ahead of the boot's seconds."""

    def __init__(self, offset: float = NOW - 1000.0) -> None:
        self.ticks = Ticks(INTERVAL)
        self.moment = 1000.0
        self.offset = offset
        self.times: list[int] = []

    def cycle(self, *, while_asleep: float = 0.0) -> int:
        self.moment += self.ticks.wait_s(self.moment + self.offset)
        self.offset += while_asleep
        self.times.append(self.ticks.stamp(self.moment, self.offset))
        return self.times[-1]


@pytest.fixture
def life() -> Life:
    return Life()


def test_cycles_come_at_whole_intervals(life: Life) -> None:
    life.moment += 4.25
    assert [life.cycle() for _ in range(3)] == [NOW + 15, NOW + 30, NOW + 45]
    assert life.moment == 1045


def test_a_cycle_that_takes_longer_leaves_times_out(life: Life) -> None:
    life.cycle()
    life.moment += 40
    assert life.cycle() == NOW + 60


def test_a_sleep_that_ends_a_hair_early_or_late_makes_no_difference(life: Life) -> None:
    life.cycle()
    life.moment -= 0.002
    assert life.ticks.wait_s(life.moment + life.offset) == pytest.approx(15.002)
    life.moment += 15.001
    assert life.ticks.stamp(life.moment, life.offset) == NOW + 30
    life.moment += 0.3
    assert life.cycle() == NOW + 45


@pytest.mark.parametrize("back", [0.5, 7.0, 8.0, 14.9])
@pytest.mark.parametrize("asleep", [True, False])
def test_a_step_back_of_less_than_an_interval_is_counted_on_over(
    life: Life, caplog, back: float, asleep: bool
) -> None:
    life.cycle()
    if not asleep:
        life.offset -= back
    times = [life.cycle(while_asleep=-back * asleep), *(life.cycle() for _ in range(3))]
    assert times == [NOW + 30, NOW + 45, NOW + 60, NOW + 75]
    assert life.moment + life.offset == NOW + 75
    assert life.ticks.steps_back == 0
    assert not caplog.records
    assert not life.ticks.used(NOW + 75)


@pytest.mark.parametrize("asleep", [True, False])
def test_a_larger_step_back_is_told_and_its_time_used(life: Life, caplog, asleep: bool) -> None:
    for _ in range(10):
        life.cycle()
    if not asleep:
        life.offset -= 60
    assert life.cycle(while_asleep=-60.0 * asleep) == NOW + 105
    assert life.ticks.steps_back == 1
    (warning,) = caplog.records
    assert warning.levelname == "WARNING"
    assert utc_text(NOW + 165) in warning.message
    assert utc_text(NOW + 105) in warning.message
    used = []
    for _ in range(10):
        used.append(life.ticks.used(life.times[-1]))
        life.cycle()
    assert used == [True] * 4 + [False] * 6
    assert len(caplog.records) == 1


def test_a_step_forward_is_told_and_leaves_a_gap(life: Life, caplog) -> None:
    caplog.set_level(logging.INFO)
    life.cycle()
    assert life.cycle(while_asleep=36_000.0) == NOW + 30 + 36_000
    assert life.cycle() == NOW + 45 + 36_000
    (record,) = caplog.records
    assert (record.levelname, "set ahead" in record.message) == ("INFO", True)
    assert life.ticks.steps_back == 0


def test_slow_correction_is_no_step(life: Life, caplog) -> None:
    for _ in range(2000):
        life.cycle(while_asleep=-0.0075)  # 500 ppm, the most that the kernel does
    assert life.times == [NOW + 15 * (1 + n) for n in range(2000)]
    assert not caplog.records


def test_small_steps_one_after_the_other_do_not_add_up(life: Life) -> None:
    for number in range(30):
        assert life.cycle(while_asleep=-14.0) == NOW + 15 * number
        assert life.times[-1] - (life.moment + life.offset) <= INTERVAL


@given(
    steps=st.lists(
        st.sampled_from([0.0, 0.0, 0.0, -1, 14, -14, -15, -16, -22.5, -30, 1000, -1000, -36000.0])
    ),
    asleep=st.booleans(),
)
def test_whatever_happens_no_time_comes_twice_in_a_row_and_none_is_far_off(steps, asleep) -> None:
    life = Life()
    for step in steps:
        if not asleep:
            life.offset += step
        begin = life.moment
        life.cycle(while_asleep=step if asleep else 0.0)
        assert life.moment - begin <= 2 * INTERVAL
        assert life.times[-1] % INTERVAL == 0
        assert abs(life.times[-1] - (life.moment + life.offset)) <= 2 * INTERVAL
    assert all(a != b for a, b in zip(life.times, life.times[1:], strict=False))


@given(steps=st.lists(st.integers(-3000, 3000)))
def test_what_counts_as_used_was_used(steps: list[int]) -> None:
    life = Life()
    for step in steps:
        time = life.cycle(while_asleep=float(step))
        if time in life.times[:-1]:
            assert life.ticks.used(time)


def test_the_memory_of_used_times_is_bounded(life: Life) -> None:
    for _ in range(5000):
        life.cycle(while_asleep=-1000.0)
    assert len(life.ticks._spans) <= 100


def test_times_that_become_known_later_are_counted_on_from(life: Life, caplog) -> None:
    life.cycle()
    life.cycle()
    life.offset += 36_007
    life.ticks.shift(36_000, life.offset)
    assert life.cycle() == NOW + 36_000 + 45
    assert not life.ticks.used(NOW + 36_000 + 45)
    assert not caplog.records
    life.cycle(while_asleep=-5 * 3600.0)
    assert not life.ticks.used(life.times[-1])  # what was there before was never its time


def test_aligned_and_nearest() -> None:
    assert [aligned(t, 15) for t in (1019.9, 1020.0)] == [1005, 1020]
    assert [nearest(t, 15) for t in (1012.4, 1012.5, 1020.0, 1027.4)] == [1005, 1020, 1020, 1020]
