"""Finds the bad lines of a refused batch in pieces: the good ones are stored, the bad ones are named."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence

from power_collector import line_protocol
from power_collector.backlog import Portion
from power_collector.influx import Answer, Verdict
from power_collector.store import Reject

MAX_REQUESTS = 200
"""For one refused batch; what is left then goes back to the end of the queue."""


class Sieve:
    """A refused batch on its way through smaller and smaller pieces.

    `portion` is what it came from.
    """

    def __init__(self, portion: Portion, answer: Answer) -> None:
        self.portion = portion
        self.requests = 1
        self.rejects: list[Reject] = []
        self.progress = False
        self._pieces: deque[Sequence[str]] = deque()
        self._postponed = 0
        if not self.refused(portion.lines, answer):
            self.again(portion.lines)

    @property
    def done(self) -> bool:
        """Whether every line is accounted for."""
        return not self._pieces

    @property
    def spent(self) -> bool:
        """Whether the batch had its requests."""
        return self.requests >= MAX_REQUESTS

    @property
    def rest(self) -> list[str]:
        """The lines that nothing is known of yet."""
        return [line for piece in self._pieces for line in piece]

    def next(self) -> Sequence[str]:
        """Take the next piece; then say `stored`, `refused`, `reject`, `again` or `postpone`."""
        self.requests += 1
        return self._pieces.pop()

    def stored(self) -> None:
        """Note that the piece is in the database."""
        self.progress = True
        self._postponed = 0

    def again(self, piece: Sequence[str]) -> None:
        """Take a piece back, of which nothing is known."""
        self._pieces.append(piece)

    def postpone(self, piece: Sequence[str]) -> bool:
        """Take a piece back behind all others; return whether that has happened to all of them in a row."""
        self._pieces.appendleft(piece)
        self._postponed += 1
        if self._postponed < len(self._pieces):
            return False
        self._postponed = 0
        return True

    def refused(self, piece: Sequence[str], answer: Answer) -> bool:
        """Split a refused piece; return False where that is of no use: all of it is bad, by the server.

        A 422 that dropped as many points as were sent needs no splitting. One that names measurement and
        field is split by them, since a conflict concerns all points of a field alike.
        """
        if len(piece) == 1 or answer.dropped == len(piece):
            return False
        suspects: list[str] = []
        if answer.conflict is not None:
            name, field = answer.conflict
            suspects = [
                line
                for line in piece
                if line_protocol.measurement(line) == name and line_protocol.has_field(line, field)
            ]
        if 0 < len(suspects) < len(piece):
            chosen = set(suspects)
            others = [line for line in piece if line not in chosen]
        else:
            suspects, others = list(piece[: len(piece) // 2]), list(piece[len(piece) // 2 :])
        self._pieces.extend((suspects, others))  # the likelier good ones are sent first
        return True

    def reject(self, piece: Sequence[str], answer: Answer) -> list[Reject]:
        """Give a piece up as bad; return what is new about that, by measurement."""
        self.progress = True
        named, field = answer.conflict or (None, "")
        groups: dict[str, list[str]] = {}
        for line in piece:
            groups.setdefault(line_protocol.measurement(line), []).append(line)
        rejects = [
            Reject(name, field if name == named else "", _reason(answer), lines)
            for name, lines in groups.items()
        ]
        self.rejects += rejects
        return rejects


def _reason(answer: Answer) -> str:
    """Return the message without what differs from line to line."""
    if answer.verdict is Verdict.TOO_LARGE:
        return "413: a single line is too large"
    text = re.sub(r"\s*dropped=[0-9]+\s*$", "", answer.message)
    text = re.sub(r"unable to parse '.*?': ", "unable to parse: ", text, flags=re.DOTALL)
    return f"{answer.status}: {text.splitlines()[0] if text else 'no reason given'}"
