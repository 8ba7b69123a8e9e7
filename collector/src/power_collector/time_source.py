"""What time it is at a moment since the boot, and by whose word: the kernel's, the MATE3s's, or nobody's."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import NamedTuple

from power_collector import RELEASED
from power_collector.clock import Clock, utc_text
from power_collector.contract import ClockSource
from power_collector.known_good import KnownGood, KnownGoodFile

PATIENCE_S = 120
"""How long after the start a trusted time is waited for."""
AGREEMENT_S = 120
"""Clocks that differ by no more than this agree."""
_AGAIN_S = 110
"""A disagreement is over below this: no clock may come and go at the bound."""

_EARLIEST = datetime(RELEASED.year, RELEASED.month, RELEASED.day, tzinfo=UTC).timestamp()
_LATEST = _EARLIEST + 10 * 365.25 * 86400

logger = logging.getLogger(__name__)


class _Choice(NamedTuple):
    source: ClockSource
    offset: float
    trusted: bool
    """Two witnesses or a time server: good enough to judge later times by."""


class TimeSource:
    """Decides which clock is used. Moments are seconds since the boot; an offset is wall minus boot-time.

    1, synchronised: the kernel says so, or said so since the boot; the system clock is followed.
    2, MATE3s: its clock agrees with the system's, which is used then, or its own is used after 120 s; the
    offset stays until the MATE3s says another time, so that nothing but the MATE3s moves it.
    3, unverified: the system clock is followed.
    """

    def __init__(self, clock: Clock, known_good: KnownGoodFile | None = None) -> None:
        self._clock = clock
        self._file = known_good
        self._started = clock.monotonic()
        self._box: float | None = None
        self._told_source = ClockSource.NONE_YET
        self._told_disagreement = False
        self._now = _Choice(ClockSource.NONE_YET, clock.wall() - self._started, trusted=False)
        self._floor = _EARLIEST
        known = known_good.last if known_good else None
        if known is not None and _EARLIEST <= known.time <= _LATEST:
            self._floor = known.time
            offset = known.time - known.moment
            # A restart of the service need not prove again what was good in this boot.
            if known.boot_id == clock.boot_id and _agree(offset, self._now.offset):
                self._now = _Choice(known.source, offset, trusted=True)

    @property
    def source(self) -> ClockSource:
        """Return whose word it is, as `collector_status.clock_source` says it."""
        return self._now.source

    @property
    def offset(self) -> float:
        """Return how far the time is ahead of the boot's seconds; while `source` is 0, by the machine."""
        return self._now.offset

    @property
    def box_offset_s(self) -> float | None:
        """Return how far the MATE3s's clock is ahead of the time; None where either is not known."""
        return None if self._box is None or self.source == ClockSource.NONE_YET else self._box - self.offset

    def hear(self, box_time: float, moment: float) -> None:
        """Note that the MATE3s's clock said `box_time` (seconds since 1970) at `moment`."""
        self._box = box_time - moment

    def look(self) -> None:
        """Decide anew; once a cycle."""
        moment = self._clock.monotonic()
        self._now = self._choose(moment)
        if self.source != self._told_source:
            self._told_source = self.source
            self._tell_source(moment)
        self._tell_disagreement()
        if self._now.trusted and self._file is not None:
            time = moment + self._now.offset
            self._file.keep(KnownGood(time, self._now.source, self._clock.boot_id, moment))

    def _choose(self, moment: float) -> _Choice:
        now, box = self._now, self._box
        system = self._clock.wall() - moment
        # The kernel gives its word up after hours without a time server; the clock is still right by seconds.
        was_synchronised = now.source == ClockSource.SYNCHRONISED and _agree(system, now.offset)
        if self._clock.synchronised() or was_synchronised:
            return _Choice(ClockSource.SYNCHRONISED, system, trusted=True)
        if now.source == ClockSource.MATE3S and (box is None or _agree(box, now.offset)):
            # The system clock agrees as well once it was set by the MATE3s's.
            return now._replace(trusted=now.trusted or _agree(now.offset, system))
        if box is not None and _agree(box, system):
            return _Choice(ClockSource.MATE3S, system, trusted=True)
        if now.source == ClockSource.NONE_YET and moment - self._started < PATIENCE_S:
            # Whole seconds only: what waits must not lie a millisecond closer together than an interval.
            return now if abs(system - now.offset) < 1 else now._replace(offset=system)
        # What it says of the start is judged: one that is behind would pass the known good time by waiting.
        if box is not None and self._floor <= box + self._started and box + moment <= _LATEST:
            return _Choice(ClockSource.MATE3S, box, trusted=False)
        if now.source == ClockSource.MATE3S:
            return now
        return _Choice(ClockSource.UNVERIFIED, system, trusted=False)

    def _tell_source(self, moment: float) -> None:
        time = utc_text(moment + self.offset)
        if self.source == ClockSource.SYNCHRONISED:
            logger.info("the clock is synchronised: it is %s", time)
        elif self.source == ClockSource.MATE3S and self._now.trusted:
            logger.info("the clock agrees with the MATE3s's: it is %s", time)
        elif self.source == ClockSource.MATE3S:
            logger.warning(
                "the time is taken from the MATE3s: %s; the system clock, which nobody vouches for, says %s",
                time,
                utc_text(self._clock.wall()),
            )
        else:
            logger.warning(
                "nobody vouches for the time %s, and points carry it unverified: no time server, and %s."
                " Give the Pi internet or set the MATE3s's clock",
                time,
                "no time from a MATE3s"
                if self._box is None
                else f"a MATE3s that says {utc_text(self._box + moment)}",
            )

    def _tell_disagreement(self) -> None:
        """Say once that a synchronised clock and the MATE3s's disagree, and once that they agree again."""
        ahead = self.box_offset_s
        if ahead is None or self.source != ClockSource.SYNCHRONISED:
            return
        if not self._told_disagreement and abs(ahead) > AGREEMENT_S:
            self._told_disagreement = True
            logger.warning(
                "the MATE3s's clock is %.0f s %s: its daily counters begin their day at another time; set it",
                abs(ahead),
                "ahead" if ahead > 0 else "behind",
            )
        elif self._told_disagreement and abs(ahead) < _AGAIN_S:
            self._told_disagreement = False
            logger.info("the MATE3s's clock is right again")


def _agree(one: float, other: float) -> bool:
    return abs(one - other) <= AGREEMENT_S
