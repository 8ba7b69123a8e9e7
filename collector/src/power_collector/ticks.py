"""The times that cycles carry: aligned to the interval, none twice in a row, whatever the clock does."""

from __future__ import annotations

import logging
import math
from collections import deque

from power_collector.clock import utc_text

_SPANS = 100
"""How many stretches of used times are remembered; each step back begins another."""

logger = logging.getLogger(__name__)


def aligned(now: float, interval_s: int) -> int:
    """Return the last whole multiple of `interval_s` at or before `now` (seconds since 1970)."""
    return math.floor(now / interval_s) * interval_s


def nearest(now: float, interval_s: int) -> int:
    """Return the whole multiple of `interval_s` nearest to `now` (seconds since 1970)."""
    return math.floor(now / interval_s + 0.5) * interval_s


class Ticks:
    """Says when the next cycle is due and which time it carries.

    Moments are boot-time in seconds, an offset is wall minus boot-time: what is done to the wall clock shows
    as another offset, and never makes a wait longer or shorter while it lasts.
    """

    def __init__(self, interval_s: int) -> None:
        self._interval_s = interval_s
        self._previous: int | None = None
        self._offset = 0.0
        self._spans: deque[list[int]] = deque(maxlen=_SPANS)
        self.steps_back = 0
        """How often the clock was set back by an interval or more since the start."""

    def wait_s(self, now: float) -> float:
        """Return the seconds until the next cycle; `now` in seconds since 1970."""
        tick = aligned(now, self._interval_s) + self._interval_s
        if self._previous == tick:
            # The cycle came a hair early, or the clock was set back a little: count on.
            tick += self._interval_s
        return tick - now

    def stamp(self, moment: float, offset: float) -> int:
        """Return the time (seconds since 1970) of the cycle that began at `moment`."""
        time = nearest(moment + offset, self._interval_s)
        if self._previous is not None:
            time = self._after(self._previous, time, moment, offset)
        if not self._spans:
            self._spans.append([time, time])
        self._spans[-1][1] = time
        self._previous, self._offset = time, offset
        return time

    def _after(self, previous: int, time: int, moment: float, offset: float) -> int:
        step = offset - self._offset
        times = utc_text(moment + self._offset), utc_text(moment + offset)
        if step <= -self._interval_s:
            self.steps_back += 1
            logger.warning("the clock was set back: from %s to %s", *times)
            # Never twice the same; back and not ahead, where the next cycle would have to wait for the clock.
            time -= self._interval_s if time == previous else 0
            self._spans.append([time, time])
            return time
        if step >= self._interval_s:
            logger.info("the clock was set ahead: from %s to %s", *times)
        return max(time, previous + self._interval_s)

    def used(self, time: int) -> bool:
        """Return whether an earlier cycle since the start may have carried `time`, before a step back."""
        return any(first <= time <= last for first, last in list(self._spans)[:-1])

    def shift(self, seconds: int, offset: float) -> None:
        """Take the times so far as `seconds` (whole intervals) later: only now the true time is known."""
        if self._previous is not None:
            self._previous += seconds
        self._spans.clear()
        self._offset = offset
