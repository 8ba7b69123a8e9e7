"""Which cut comes when: drawn from a seed, or written down to have one again."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

KINDS = ("power", "kill")
"""The Pi loses its power; or ansible-playbook and all that belongs to it is killed, as when the laptop goes off."""

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


def draw(seed: int, cuts: int, cards: int, first_run_s: float) -> Iterator[tuple[Cut, ...]]:
    """The cuts of one card after the other, evenly many on each, the first in a run on the blank card.

    Half are of each kind. The first moment is drawn over the whole first run, those in re-runs over RERUN of it.
    """
    dice = random.Random(seed)
    kinds = list(itertools.islice(itertools.cycle(KINDS), cuts))
    dice.shuffle(kinds)
    for card in range(cards):
        on_card = cuts // cards + (card < cuts % cards)
        lengths = [first_run_s, *[first_run_s * RERUN] * (on_card - 1)][:on_card]
        yield tuple(
            Cut(kinds.pop(), Moment("start", round(dice.uniform(0, length), 1))) for length in lengths
        )
