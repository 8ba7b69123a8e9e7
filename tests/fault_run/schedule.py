"""What happens when: a seed's plan of faults, outages, kills and orderly restarts."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

INTERVAL_S = 2
DURATION_S = 336.0
"""With what the restarts cost, 150 to 160 cycles."""
KILLS = 20

LONG_OUTAGE_S = 78.0
"""Long enough that cycles are kept on the disk (after 52 s) and that a kill comes more than 60 s after its begin."""
_SHORT_OUTAGES = (("end", 22.0), ("kill", 15.0), ("hang", 18.0))
_CALM_AFTER_S = 18.0
"""So long after a short outage the collector may wait before it tries the database again."""

FAULTS: Sequence[Mapping[str, Any]] = (
    {"fault": "slow", "seconds": 0.4},  # a charger's answer still comes in time
    {"fault": "slow", "seconds": 2.6},
    {"fault": "silent"},
    {"fault": "refusing"},
    {"fault": "reset"},
    {"fault": "hang-up"},
    {"fault": "exception", "code": 4},
    {"fault": "busy"},
    {"fault": "nan"},
    {"fault": "garbage"},
    {"fault": "wrong-transaction"},
    {"fault": "truncated"},
    {"fault": "short"},
    {"latency_ms": 25.0},
)
"""Settings of the simulated room's control file."""


@dataclass(frozen=True)
class Step:
    """One action, `at` seconds after the begin.

    fault (device, settings), heal (device); stop database (how: end, kill, hang), start database;
    kill collector, end collector, start collector.
    """

    at: float
    action: str
    device: str = ""
    how: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


def plan(seed: int, devices: Sequence[str]) -> list[Step]:
    """Give the steps of a seed in their order; at the end everything is healed."""
    random_ = random.Random(seed)
    steps = _device_faults(random_, devices) + _outages_and_kills(random_)
    return sorted(steps, key=lambda step: step.at)


def _device_faults(random_: random.Random, devices: Sequence[str]) -> list[Step]:
    """Let at most two devices at once have a fault: so no cycle is without an answer that proves that it ran."""
    steps: list[Step] = []
    bag: list[Mapping[str, Any]] = []
    ends = dict.fromkeys(devices, 0.0)
    free_at = [random_.uniform(4, 8), random_.uniform(6, 12)]
    while (begin := min(free_at)) < DURATION_S - 30:
        bag = bag or random_.sample(FAULTS, len(FAULTS))
        device = random_.choice([name for name, end in ends.items() if end < begin])
        end = begin + random_.uniform(4, 13)
        steps.append(Step(begin, "fault", device=device, settings=bag.pop()))
        steps.append(Step(end, "heal", device=device))
        ends[device] = end + 1
        free_at[free_at.index(begin)] = end + random_.uniform(2, 7)
    return steps


def _outages_and_kills(random_: random.Random) -> list[Step]:
    outages = [*_SHORT_OUTAGES, (random_.choice(["end", "kill"]), LONG_OUTAGE_S)]
    random_.shuffle(outages)
    restarted = random_.choice([how for how, length in outages if length < LONG_OUTAGE_S])
    calm = (DURATION_S - sum(length for _, length in outages)) / (len(outages) + 1)
    steps: list[Step] = []
    steps += _kills(random_, 7, calm - 3, 3)
    now = calm
    for how, length in outages:
        steps += [Step(now, "stop database", how=how), Step(now + length, "start database")]
        if length == LONG_OUTAGE_S:
            # What the first one finds on the disk are cycles that no kill excuses: of the first 52 s.
            steps += _kill(random_, now + random_.uniform(66, 69))
            steps += _kill(random_, now + random_.uniform(74, 76.5))
        elif how == restarted:
            # All that was in memory is on the disk after an orderly end, also while the database is away.
            steps += _kill(random_, now + random_.uniform(4, 6))
            steps += _end(random_, now + random_.uniform(10, 12))
        else:
            steps += _kill(random_, now + random_.uniform(6, 10))
        now += length
        # While it drains, or is about to.
        steps += _kill(random_, now + random_.uniform(0.5, 2.5))
        steps += _kills(random_, now + _CALM_AFTER_S, now + calm - 3, 2)
        now += calm
    steps += _end(random_, now - 1)
    assert sum(step.action == "kill collector" for step in steps) == KILLS
    return steps


def _kills(random_: random.Random, begin: float, end: float, count: int) -> list[Step]:
    """Spread kills, so that a collector comes to rest between two of them."""
    part = (end - begin) / count
    kills = (_kill(random_, begin + part * (i + random_.uniform(0, 0.6))) for i in range(count))
    return [step for kill in kills for step in kill]


def _kill(random_: random.Random, at: float) -> list[Step]:
    return [Step(at, "kill collector"), Step(at + random_.uniform(0.1, 1.2), "start collector")]


def _end(random_: random.Random, at: float) -> list[Step]:
    return [Step(at, "end collector"), Step(at + random_.uniform(0.1, 1.2), "start collector")]
