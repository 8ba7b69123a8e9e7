"""Whose time is used: the kernel's word, the MATE3s's, the last known good time, and none of them."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from power_collector import RELEASED
from power_collector.contract import ClockSource
from power_collector.known_good import KnownGood, KnownGoodFile
from power_collector.time_source import AGREEMENT_S, PATIENCE_S, TimeSource

TRUE = 1_900_000_000.0
"""The true time when the machine boots."""
HOURS = 3600.0
CHANGELOG = Path(__file__).parents[2] / "CHANGELOG.md"


@dataclass
class Machine:
    """A clock that is `wrong` by so many seconds, `moment` seconds after the boot."""

    wrong: float = 0.0
    moment: float = 20.0
    synchronises: bool = False
    boot_id: str = "boot-2"

    def wall(self) -> float:
        return self.true + self.wrong

    @property
    def true(self) -> float:
        return TRUE + self.moment

    def monotonic(self) -> float:
        return self.moment

    def synchronised(self) -> bool:
        return self.synchronises

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nobody waits here")


class Life:
    """A time source that is looked at each 15 s."""

    def __init__(self, machine: Machine, directory: Path | None = None) -> None:
        self.machine = machine
        self.source = TimeSource(machine, KnownGoodFile(directory) if directory else None)

    def box(self, wrong: float = 0.0) -> None:
        """The MATE3s is read."""
        self.source.hear(float(int(self.machine.true + wrong)), self.machine.moment)

    def run(self, seconds: float) -> None:
        end = self.machine.moment + seconds
        while self.machine.moment < end:
            self.machine.moment += 15
            self.source.look()

    @property
    def error(self) -> float:
        """How far the time in use is from the true one."""
        return self.machine.moment + self.source.offset - self.machine.true


def life(**machine: object) -> Life:
    return Life(Machine(**machine))  # type: ignore[arg-type]


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_synchronised_from_the_first_look_and_followed() -> None:
    one = life(synchronises=True)
    assert one.source.source == ClockSource.NONE_YET
    one.source.look()
    assert one.source.source == ClockSource.SYNCHRONISED
    one.machine.wrong = 0.25
    one.source.look()
    assert one.error == 0.25


def test_agreement_with_the_mate3s_is_enough_at_once(caplog) -> None:
    one = life(wrong=-100)
    one.box()
    one.source.look()
    assert one.source.source == ClockSource.MATE3S
    assert one.error == -100  # the system clock's time is used: it agrees
    assert said(caplog) == []


@pytest.mark.parametrize("wrong", [-10 * HOURS, 10 * HOURS, AGREEMENT_S + 2.0, -AGREEMENT_S - 2.0])
def test_hours_off_the_mate3s_is_waited_for_no_longer_than_two_minutes(wrong: float, caplog) -> None:
    one = life(wrong=wrong)
    one.box()
    one.run(PATIENCE_S - 15)
    assert one.source.source == ClockSource.NONE_YET
    assert one.source.box_offset_s is None
    one.run(15)
    assert one.source.source == ClockSource.MATE3S
    assert -1 <= one.error <= 0  # its clock shows whole seconds
    assert one.source.box_offset_s == 0
    (warning,) = said(caplog)
    assert "taken from the MATE3s" in warning


def test_nothing_but_the_mate3s_moves_a_time_that_is_taken_from_it() -> None:
    one = life(wrong=-10 * HOURS)
    one.box()
    one.run(PATIENCE_S)
    before = one.error
    one.machine.wrong += 5 * HOURS
    one.run(HOURS)
    one.box(wrong=30)
    one.run(HOURS)
    assert one.error == before
    one.box(wrong=2 * HOURS)  # somebody set it
    one.run(15)
    assert one.error == pytest.approx(2 * HOURS, abs=1)
    assert one.source.source == ClockSource.MATE3S


def test_ntp_that_arrives_in_time_is_preferred() -> None:
    one = life(wrong=-10 * HOURS)
    one.box(wrong=50)
    one.run(60)
    one.machine.wrong, one.machine.synchronises = 0.0, True
    one.run(15)
    assert (one.source.source, one.error) == (ClockSource.SYNCHRONISED, 0)


@pytest.mark.parametrize("box", [0.0, None])
def test_ntp_that_arrives_late_is_preferred_too(box: float | None) -> None:
    one = life(wrong=-10 * HOURS)
    if box is not None:
        one.box(box)
    one.run(5 * HOURS)
    assert one.source.source == (ClockSource.UNVERIFIED if box is None else ClockSource.MATE3S)
    one.machine.wrong, one.machine.synchronises = 0.0, True
    one.run(15)
    assert (one.source.source, one.error) == (ClockSource.SYNCHRONISED, 0)


def test_without_a_mate3s_the_time_is_unverified_after_two_minutes(caplog) -> None:
    one = life(wrong=-10 * HOURS)
    one.run(PATIENCE_S - 15)
    assert one.source.source == ClockSource.NONE_YET
    one.run(15)
    assert one.source.source == ClockSource.UNVERIFIED
    assert one.error == -10 * HOURS
    (warning,) = said(caplog)
    assert "no time from a MATE3s" in warning
    one.machine.wrong = -3 * HOURS
    one.run(HOURS)
    assert one.error == -3 * HOURS
    assert len(said(caplog)) == 1


def test_a_mate3s_that_comes_late_ends_the_unverified_time() -> None:
    one = life(wrong=-10 * HOURS)
    one.run(HOURS)
    one.box()
    one.run(15)
    assert one.source.source == ClockSource.MATE3S
    assert -1 <= one.error <= 0


@pytest.mark.parametrize(
    "says",
    [
        datetime(2000, 1, 1, 0, 3, tzinfo=UTC),
        datetime(2026, 11, 23, tzinfo=UTC),  # before the package was made
        datetime(2037, 1, 1, tzinfo=UTC),  # more than ten years after
        datetime(2099, 12, 31, tzinfo=UTC),
    ],
)
def test_a_mate3s_that_says_nonsense_is_not_believed(says: datetime, caplog) -> None:
    one = life(wrong=-10 * HOURS)
    one.source.hear(says.timestamp(), one.machine.moment)
    one.run(PATIENCE_S)
    assert one.source.source == ClockSource.UNVERIFIED
    (warning,) = said(caplog)
    assert f"a MATE3s that says {says.year}" in warning
    assert "set the MATE3s's clock" in warning


def test_a_time_that_is_taken_survives_later_nonsense() -> None:
    one = life(wrong=-10 * HOURS)
    one.box()
    one.run(PATIENCE_S)
    one.source.hear(946_684_800.0, one.machine.moment)
    one.run(HOURS)
    assert one.source.source == ClockSource.MATE3S
    assert -1 <= one.error <= 0


def test_the_last_known_good_time_is_the_least_that_is_believed(tmp_path: Path, caplog) -> None:
    earlier = KnownGood(TRUE - 50, ClockSource.SYNCHRONISED, "boot-1", 9e6)
    KnownGoodFile(tmp_path).keep(earlier)
    one = Life(Machine(wrong=-10 * HOURS), tmp_path)
    one.box(wrong=-1 * HOURS)
    one.run(PATIENCE_S)
    assert one.source.source == ClockSource.UNVERIFIED
    assert "a MATE3s that says" in said(caplog)[0]
    two = Life(Machine(wrong=-10 * HOURS), tmp_path)
    two.box()
    two.run(PATIENCE_S)
    assert two.source.source == ClockSource.MATE3S


@pytest.mark.parametrize("behind", [1 * HOURS, 24 * HOURS])
def test_a_mate3s_that_was_too_far_behind_is_not_believed_after_hours_either(
    tmp_path: Path, behind: float
) -> None:
    KnownGoodFile(tmp_path).keep(KnownGood(TRUE - 1200, ClockSource.SYNCHRONISED, "boot-1", 9e6))
    one = Life(Machine(wrong=-90), tmp_path)
    for _ in range(27 * 6):
        one.box(wrong=-behind)
        one.run(600)
        assert one.source.source == ClockSource.UNVERIFIED
        assert one.error == -90
    one.box()
    one.run(15)
    assert one.source.source == ClockSource.MATE3S


@pytest.mark.parametrize("time", [0.0, 9e9, float("nan"), float("inf")])
def test_a_known_good_time_that_cannot_be_is_no_bound(tmp_path: Path, time: float) -> None:
    KnownGoodFile(tmp_path).keep(KnownGood(time, ClockSource.SYNCHRONISED, "boot-1", 1.0))
    one = Life(Machine(wrong=-10 * HOURS), tmp_path)
    one.box()
    one.run(PATIENCE_S)
    assert one.source.source == ClockSource.MATE3S


def test_only_a_trusted_time_becomes_known_good(tmp_path: Path) -> None:
    for box in (0.0, None):
        one = Life(Machine(wrong=-10 * HOURS), tmp_path)
        if box is not None:
            one.box(box)
        one.run(3 * HOURS)
        assert list(tmp_path.iterdir()) == []
    one.machine.wrong, one.machine.synchronises = 0.0, True
    one.run(15)
    last = KnownGoodFile(tmp_path).last
    assert last == KnownGood(one.machine.true, ClockSource.SYNCHRONISED, "boot-2", one.machine.moment)


@pytest.mark.parametrize("synchronises", [True, False])
def test_a_restart_of_the_service_need_not_wait(tmp_path: Path, synchronises: bool) -> None:
    before = Life(Machine(synchronises=synchronises), tmp_path)
    before.box()
    before.run(15)
    # Hours later the kernel has given its word up, and the MATE3s is away.
    after = Life(Machine(moment=9 * HOURS), tmp_path)
    assert after.source.source == (ClockSource.SYNCHRONISED if synchronises else ClockSource.MATE3S)
    after.run(15)
    assert after.source.source == (ClockSource.SYNCHRONISED if synchronises else ClockSource.MATE3S)
    assert after.error == 0
    for other in (Machine(boot_id="boot-3"), Machine(moment=9 * HOURS, wrong=-1 * HOURS)):
        assert Life(other, tmp_path).source.source == ClockSource.NONE_YET


def test_the_kernels_word_lasts_until_somebody_sets_the_clock() -> None:
    one = life(synchronises=True)
    one.box(wrong=-1 * HOURS)
    one.run(15)
    one.machine.synchronises = False
    one.run(24 * HOURS)
    assert one.source.source == ClockSource.SYNCHRONISED  # not an hour back to a MATE3s in the wrong zone
    one.machine.wrong = -1 * HOURS
    one.run(15)
    assert one.source.source == ClockSource.MATE3S


def test_a_mate3s_that_disagrees_with_a_synchronised_pi_is_said_once_and_its_end_once(caplog) -> None:
    caplog.set_level(logging.INFO)
    one = life(synchronises=True)
    for wrong in (0, 119, -300, -300, -121, -119, -121, -100, -100, 3600):
        one.box(wrong=float(wrong))
        one.run(600)
        assert one.source.box_offset_s == pytest.approx(wrong, abs=1)
    told = [r.message for r in caplog.records if "MATE3s's clock is" in r.message]
    assert [(" behind" in line, " ahead" in line) for line in told] == [
        (True, False),
        (False, False),
        (False, True),
    ]
    assert told[1] == "the MATE3s's clock is right again"


def test_a_clock_that_is_set_before_anything_is_known_is_noticed() -> None:
    one = life(wrong=-10 * HOURS)
    before = one.source.offset
    one.machine.wrong += 0.4
    one.run(15)
    assert one.source.offset == before  # a correction by less than a second moves nothing that waits
    one.machine.wrong += 1 * HOURS
    one.run(15)
    assert one.source.offset == before + 0.4 + 1 * HOURS
    assert one.source.source == ClockSource.NONE_YET


def test_the_release_is_what_the_changelog_says_and_not_in_the_future() -> None:
    dated = re.search(
        r"^## \[?[0-9].*?(\d{4}-\d{2}-\d{2})", CHANGELOG.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert dated is None or date.fromisoformat(dated[1]) == RELEASED
    assert datetime(RELEASED.year, RELEASED.month, RELEASED.day, tzinfo=UTC) <= datetime.now(UTC)
