"""Which cycles a kill -9 may cost, by the design: those that were not acknowledged yet."""

from __future__ import annotations

from collections.abc import Sequence

from .processes import Life, Outage
from .schedule import INTERVAL_S

HELD_S = 60
"""At most so long cycles are in memory alone while the database is away."""
RETRY_DELAYS_S = (1, 2, 4, 8, 15, 30)
"""A database that is away is tried again after so long: for that time it is still away, seen from the collector."""
_SLACK_S = 1.0


def excused(lives: Sequence[Life], outages: Sequence[Outage]) -> set[int]:
    """Give the times of all cycles that may be missing because of a kill.

    With the database there that is the cycle under way alone. While it is away, it is also the cycles of this life
    since the outage began, not older than 60 s, less those that the store held.
    """
    cycles: set[int] = set()
    for life in lives:
        if life.killed is None:
            continue
        first = _tick(life.killed)
        for outage in outages:
            if outage.begin <= life.end and life.killed <= seen_until(outage, life):
                first = min(first, _tick(max(outage.begin, life.begin, life.killed - HELD_S)))
        cycles |= set(range(first, _tick(life.end) + 1, INTERVAL_S)) - life.kept
    return cycles


def seen_until(outage: Outage, life: Life) -> float:
    """Give the moment until which a collector may take the database for away: its next try after the return."""
    if life.begin > outage.end:
        return outage.end  # it tries at once
    tried_for = outage.end - max(outage.begin, life.begin)
    since, delay = 0.0, 0.0
    for delay in RETRY_DELAYS_S:
        since += delay
        if since > tried_for:
            break
    return outage.end + delay + _SLACK_S


def _tick(moment: float) -> int:
    return int(moment // INTERVAL_S) * INTERVAL_S
