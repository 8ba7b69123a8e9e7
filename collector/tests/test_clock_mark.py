"""The mark that asks for another system clock: when it is left, what it says, and what comes after it."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

from power_collector.clock_mark import EVERY_S, NAME, ClockMark
from power_collector.contract import ClockSource
from power_collector.known_good import KnownGoodFile
from power_collector.time_source import AGREEMENT_S, PATIENCE_S, TimeSource

TRUE = 1_900_000_000.0
"""The true time at the start."""
HOURS = 3600.0


class Pi:
    """A collector's clocks, looked at each 15 s; the mark is taken away as root does, and noted."""

    def __init__(self, clock, directory: Path, *, wrong: float, synchronised: bool = False) -> None:
        self.clock = clock
        clock.start, clock.step, clock.synchronises = TRUE, wrong, synchronised
        self.directory = directory
        self.source = TimeSource(clock, KnownGoodFile(directory))
        self.mark = ClockMark(directory, clock)
        self.left: list[tuple[float, str]] = []
        """True time and content of each mark."""

    @property
    def true(self) -> float:
        return self.clock.start + self.clock.elapsed

    def box(self, wrong: float = 0.0) -> None:
        """The MATE3s is read."""
        self.source.hear(self.true + wrong, self.clock.monotonic())

    def run(self, seconds: float) -> None:
        end = self.clock.elapsed + seconds
        while self.clock.elapsed < end:
            self.clock.advance(15)
            self.source.look()
            self.mark.look(self.source)
            if (file := self.directory / NAME).exists():
                self.left.append((self.true, file.read_text()))
                file.unlink()

    @property
    def error(self) -> float:
        """How far the time in use is from the true one."""
        return self.clock.monotonic() + self.source.offset - self.true


@pytest.mark.parametrize("wrong", [-10 * HOURS, 10 * HOURS, -AGREEMENT_S - 1.0])
def test_a_system_clock_that_the_mate3s_contradicts_is_asked_to_be_set(clock, tmp_path, wrong) -> None:
    pi = Pi(clock, tmp_path, wrong=wrong)
    pi.box()
    pi.run(PATIENCE_S)
    assert pi.source.source == ClockSource.MATE3S
    assert pi.left == [(TRUE + PATIENCE_S, f"{TRUE + PATIENCE_S:.0f}\n")]
    assert list(tmp_path.iterdir()) == []


def test_not_more_than_once_in_ten_minutes(clock, tmp_path) -> None:
    pi = Pi(clock, tmp_path, wrong=-10 * HOURS)
    pi.box()
    pi.run(PATIENCE_S + 3 * EVERY_S)
    times = [at for at, _ in pi.left]
    assert times == [TRUE + PATIENCE_S + number * EVERY_S for number in range(4)]
    assert [text for _, text in pi.left] == [f"{at:.0f}\n" for at in times]


@pytest.mark.parametrize(
    ("source", "wrong", "box", "synchronised"),
    [
        (ClockSource.SYNCHRONISED, 0.0, 5 * HOURS, True),
        (ClockSource.SYNCHRONISED, 0.0, None, True),
        (ClockSource.MATE3S, -100.0, 0.0, False),
        (ClockSource.UNVERIFIED, -10 * HOURS, None, False),
        (ClockSource.UNVERIFIED, -10 * HOURS, -20 * 365 * 24 * HOURS, False),
    ],
)
def test_in_no_other_case(clock, tmp_path, source, wrong, box, synchronised) -> None:
    pi = Pi(clock, tmp_path, wrong=wrong, synchronised=synchronised)
    if box is not None:
        pi.box(box)
    pi.run(2 * HOURS)
    assert pi.source.source == source
    assert pi.left == []


def test_nobody_but_the_mate3s_is_a_reason(clock, tmp_path) -> None:
    for source in set(ClockSource) - {ClockSource.MATE3S}:
        ClockMark(tmp_path, clock).look(SimpleNamespace(source=source, offset=5 * HOURS))
    assert list(tmp_path.iterdir()) == []


def test_not_before_the_time_is_known(clock, tmp_path) -> None:
    pi = Pi(clock, tmp_path, wrong=-10 * HOURS)
    pi.box()
    pi.run(PATIENCE_S - 15)
    assert pi.source.source == ClockSource.NONE_YET
    assert pi.left == []


def test_once_root_has_set_the_clock_the_time_is_trusted_and_nothing_moves(clock, tmp_path, caplog) -> None:
    pi = Pi(clock, tmp_path, wrong=-10 * HOURS)
    pi.box(wrong=-40)
    pi.run(PATIENCE_S)
    assert KnownGoodFile(tmp_path).last is None
    (_, text), before = pi.left[0], pi.error
    clock.step += int(text) - 1 - clock.wall()  # a busy machine
    pi.run(15)  # the very next look
    assert pi.source.source == ClockSource.MATE3S
    assert pi.error == before == -40
    known = KnownGoodFile(tmp_path).last  # which a trusted time alone becomes
    assert known is not None
    assert (known.source, known.time) == (ClockSource.MATE3S, pi.true - 40)
    pi.box(wrong=-41)
    pi.run(2 * HOURS)
    assert (pi.error, len(pi.left)) == (-40, 1)
    # A restart of the service goes on at once, also without the MATE3s.
    assert TimeSource(clock, KnownGoodFile(tmp_path)).source == ClockSource.MATE3S
    assert "still wrong" not in caplog.text


def test_a_time_server_that_comes_in_between_ends_it(clock, tmp_path) -> None:
    pi = Pi(clock, tmp_path, wrong=-10 * HOURS)
    pi.box(wrong=5 * HOURS)
    pi.run(PATIENCE_S)
    clock.step, clock.synchronises = 0.0, True
    pi.run(2 * HOURS)
    assert len(pi.left) == 1


def test_a_clock_that_agreed_and_is_set_to_another_time_is_set_back(clock, tmp_path) -> None:
    pi = Pi(clock, tmp_path, wrong=0.0)
    pi.box()
    pi.run(HOURS)
    clock.step = 3 * HOURS
    pi.run(15)
    assert pi.left == [(pi.true, f"{pi.true:.0f}\n")]
    pi.run(3 * HOURS)  # nobody sets it, and what was agreed on stays good
    known = KnownGoodFile(tmp_path).last
    assert known is not None
    assert pi.true - HOURS < known.time <= pi.true


def test_a_clock_that_nobody_sets_is_said_once(clock, tmp_path, caplog) -> None:
    caplog.set_level(logging.INFO, "power_collector.clock_mark")
    pi = Pi(clock, tmp_path, wrong=-10 * HOURS)
    pi.box()
    pi.run(5 * HOURS)
    said = [(r.levelname, r.getMessage()) for r in caplog.records if r.name.endswith("clock_mark")]
    assert [level for level, _ in said] == ["INFO", "WARNING"]
    assert f"-36000 s off: {tmp_path / NAME} asks" in said[0][1]
    assert "power-clock.path" in said[1][1]
    for clock.step in (0.0, -3 * HOURS):
        pi.run(EVERY_S)
    assert "-10800 s off" in caplog.messages[-1]


def test_a_mark_that_cannot_be_left_is_said_once_and_costs_nothing(clock, tmp_path, caplog) -> None:
    pi = Pi(clock, tmp_path, wrong=-10 * HOURS)
    (tmp_path / "file").write_text("")
    pi.mark = ClockMark(tmp_path / "file", clock)
    pi.box()
    pi.run(5 * HOURS)
    (said,) = [r.getMessage() for r in caplog.records if r.name.endswith("clock_mark")]
    assert "cannot be written" in said
