"""The battery's lowest voltage since sunset."""

from __future__ import annotations

import json

import pytest

from power_collector.night import LONGEST_GAP_S, Night

HOUR = 3600


def watched(night: Night, begin_h: int, voltages: list[float | None], *, dark: bool) -> None:
    for hour, voltage in enumerate(voltages, start=begin_h):
        night.look(hour * HOUR, voltage, night=dark)


def test_it_is_the_lowest_from_sunset_to_morning_and_stays_by_day() -> None:
    night = Night()
    watched(night, 17, [49.0, 54.0], dark=False)
    assert night.lowest is None
    watched(night, 19, [52.0, None, 51.2, 51.6], dark=True)
    assert night.lowest == 51.2
    watched(night, 23, [50.0, 56.0], dark=False)
    assert night.lowest == 51.2, "the day's dips are none of the night's"
    watched(night, 25, [53.0], dark=True)
    assert night.lowest == 53.0, "a new night"


def test_a_night_that_was_not_watched_from_sunset_on_has_none() -> None:
    night = Night()
    watched(night, 22, [51.0, 50.0], dark=True)
    watched(night, 24, [54.0], dark=False)
    assert night.lowest is None


@pytest.mark.parametrize("dark", [True, False])
def test_after_a_long_gap_nothing_is_known(dark: bool) -> None:
    night = Night()
    watched(night, 18, [54.0], dark=False)
    watched(night, 19, [52.0], dark=True)
    night.look(19 * HOUR + LONGEST_GAP_S + 1, 51.0, night=dark)
    assert night.lowest is None


def test_it_goes_on_after_a_restart() -> None:
    before = Night()
    watched(before, 18, [54.0], dark=False)
    watched(before, 19, [51.0], dark=True)
    after = Night()
    after.restore(json.loads(json.dumps(before.state())))
    assert after.lowest == 51.0
    watched(after, 20, [52.0, 50.5], dark=True)
    assert after.lowest == 50.5


def test_a_first_look_by_day_after_a_restart_in_an_unknown_night_stays_unknown() -> None:
    before = Night()
    watched(before, 20, [50.0], dark=True)
    after = Night()
    after.restore(json.loads(json.dumps(before.state())))
    watched(after, 21, [50.0], dark=True)
    assert after.lowest is None
