"""A system clock that the MATE3s contradicts: leaves a mark, for root to set it.

A Pi that was without power and without internet starts in the past. The points have the MATE3s's time, but to
the database, the alarms and the screens they lie in the future until somebody sets the system clock. The
collector may not. It leaves the time in its runtime directory, and a unit of root's that watches for it does
the rest.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path

from power_collector import small_file
from power_collector.clock import Clock
from power_collector.contract import ClockSource
from power_collector.time_source import AGREEMENT_S, TimeSource

NAME = "set-clock"
"""The mark in the runtime directory, a line of whole seconds since 1970. The role collector knows it."""
EVERY_S = 600
"""How often it is left at most."""

logger = logging.getLogger(__name__)


class ClockMark:
    """Leaves the mark while the time in use is the MATE3s's and the system clock tells another."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        self._mark = directory / NAME
        self._clock = clock
        self._left = -math.inf
        self._asked = 0
        """How often in a row."""

    def look(self, time: TimeSource) -> None:
        """Leave the mark where it is time for that; once a cycle, after `time` was decided anew."""
        moment = self._clock.monotonic()
        now, system = moment + time.offset, self._clock.wall()
        if time.source != ClockSource.MATE3S or abs(now - system) <= AGREEMENT_S:
            self._asked = 0
            return
        if moment - self._left < EVERY_S:
            return
        self._left = moment
        self._asked += 1
        try:
            small_file.replace(self._mark, f"{now:.0f}\n")
        except OSError as error:
            level = logging.WARNING if self._asked == 1 else logging.DEBUG
            logger.log(level, "the system clock stays wrong: %s cannot be written: %s", self._mark, error)
            return
        if self._asked == 1:
            logger.info("the system clock is %.0f s off: %s asks for its setting", system - now, self._mark)
        elif self._asked == 2:
            logger.warning("the system clock is still wrong: `journalctl -u power-clock -u power-clock.path`")
