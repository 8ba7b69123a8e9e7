"""Which cut comes when: drawn from a seed, or written down to have one again."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

KINDS = ("kill", "power")
"""ansible-playbook and all that belongs to it is killed, as when the laptop goes off; or the Pi loses its power."""

RERUN = 0.5
"""A re-run is shorter than the first: its cuts are drawn over this part of the first run's length."""


@dataclass(frozen=True)
class Moment:
    """So many seconds after the begin of a task, by its name; "start" and "end" are those of the run."""

    task: str
    seconds: float


@dataclass(frozen=True)
class Cut:
    """`kind` is one of KINDS."""

    kind: str
    moment: Moment

    def __str__(self) -> str:
        return f"{self.kind},{self.moment.seconds:.1f},{self.moment.task}"

    @classmethod
    def parse(cls, text: str) -> Cut:
        """Read what `str` writes; raises ValueError."""
        kind, seconds, task = text.split(",", 2)
        if kind not in KINDS:
            raise ValueError(f"{kind} is neither of {', '.join(KINDS)}")
        return cls(kind, Moment(task, float(seconds)))


KNOWN = Cut("kill", Moment("network : Start the script", 1.0))
"""Always the first: nobody confirms the cable's new profile, and the old one came back in the middle of the next run."""


def draw(seed: int, cuts: int, cards: int, first_run_s: float) -> Iterator[tuple[Cut, ...]]:
    """The cuts of one card after the other, evenly many on each, the first in a run on the blank card.

    KNOWN comes first, the others are drawn. Half are of each kind. The first moment on a card is drawn over the whole first
    run, those in re-runs over RERUN of it.
    """
    dice = random.Random(seed)
    kinds = list(itertools.islice(itertools.cycle(KINDS), 1, cuts))
    dice.shuffle(kinds)
    known = [KNOWN]
    for card in range(cards):
        on_card = cuts // cards + (card < cuts % cards)
        lengths = [first_run_s, *[first_run_s * RERUN] * (on_card - 1)]
        yield tuple(
            known.pop() if known else Cut(kinds.pop(), Moment("start", round(dice.uniform(0, length), 1)))
            for length in lengths
        )
