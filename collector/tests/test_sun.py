"""The sun over the ranch, compared with sunrise and sunset worked out by hand."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from power_collector.config import SiteConfig
from power_collector.sun import SUNSET_DEG, WORKING_DEG, Sun

RANCH = SiteConfig(latitude=35.0, longitude=-119.0, timezone="America/Los_Angeles")
ZONE = ZoneInfo("America/Los_Angeles")


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZONE).timestamp()


def changes(what, day: str) -> list[datetime]:
    """Return the local minutes of a day at which `what` changes."""
    begin = at(day)
    times = [begin + 60 * minute for minute in range(24 * 60)]
    return [
        datetime.fromtimestamp(time, ZONE) for time in times[1:] if bool(what(time)) != bool(what(time - 60))
    ]


@pytest.mark.parametrize(
    ("day", "sunrise", "sunset"),
    [
        # The sunrise equation at the solstices: declination ±23.44°, equation of time -1.8 and 1.9 minutes.
        ("2026-06-21", "2026-06-21 05:42", "2026-06-21 20:13"),
        ("2026-12-21", "2026-12-21 07:00", "2026-12-21 16:48"),
    ],
)
def test_sunrise_and_sunset_are_where_they_belong(day: str, sunrise: str, sunset: str) -> None:
    sun = Sun(RANCH)
    up, down = changes(lambda time: sun.height(time) >= SUNSET_DEG, day)
    for found, expected in ((up, sunrise), (down, sunset)):
        assert abs(found.timestamp() - at(expected)) <= 120


def test_the_night_lasts_from_sunset_until_the_sun_is_high_enough_for_the_chargers() -> None:
    sun = Sun(RANCH)
    ends, begins = changes(sun.is_night, "2026-06-21")
    works_from, works_until = changes(sun.works, "2026-06-21")
    assert ends == works_from
    # In the evening the chargers are not waited for any more before it is night.
    assert timedelta(minutes=20) < begins - works_until < timedelta(minutes=45)
    assert abs(begins.timestamp() - at("2026-06-21 20:13")) <= 120


@given(st.floats(-90, 90), st.floats(-180, 180), st.integers(1_760_000_000, 2_100_000_000))
def test_anywhere_and_ever_it_is_never_night_while_the_chargers_work(
    latitude: float, longitude: float, time: int
) -> None:
    sun = Sun(SiteConfig(latitude=latitude, longitude=longitude, timezone="UTC"))
    assert -90 <= sun.height(time) <= 90
    assert not (sun.works(time) and sun.is_night(time))
    assert sun.works(time) == (sun.height(time) >= WORKING_DEG)
