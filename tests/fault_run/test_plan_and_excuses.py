"""The plan's and the excuses' own tests: a fault run whose excuses were too wide would prove nothing."""

from __future__ import annotations

import pytest

from .excuses import excused
from .processes import Life, Outage
from .schedule import DURATION_S, FAULTS, INTERVAL_S, KILLS, plan

DEVICES = ("mate3s", "sc1", "sc2", "sc3", "sc4")
SEEDS = range(100)


def test_a_seed_repeats_its_plan_and_another_one_does_not() -> None:
    assert plan(7, DEVICES) == plan(7, DEVICES)
    assert plan(7, DEVICES) != plan(8, DEVICES)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_plan_has_all_faults_and_lets_most_cycles_be_proven(seed: int) -> None:
    steps = plan(seed, DEVICES)
    lives, outages, faulty = [Life(0.0)], [], set()
    for step in steps:
        match step.action:
            case "fault":
                faulty.add(step.device)
                assert len(faulty) <= 2
            case "heal":
                faulty.remove(step.device)
            case "stop database":
                outages.append(Outage(step.at, step.how))
            case "start database":
                outages[-1].end = step.at
            case "kill collector":
                assert lives[-1].end == float("inf"), "nothing to kill"
                lives[-1].killed = lives[-1].end = step.at
                if outages and outages[-1].begin + 56 < step.at < outages[-1].end:
                    # What has been in memory for 52 s is on the disk.
                    first = int(outages[-1].begin) // INTERVAL_S * INTERVAL_S
                    lives[-1].kept = frozenset(range(first, first + 52, INTERVAL_S))
            case "end collector":
                assert lives[-1].end == float("inf"), "nothing to end"
                lives[-1].end = step.at
            case "start collector":
                assert lives[-1].end < step.at
                lives.append(Life(step.at))
    assert not faulty
    assert sum(life.killed is not None for life in lives) == KILLS
    used = [step.settings for step in steps if step.action == "fault"]
    assert all(settings in used for settings in FAULTS)
    assert len(excused(lives, outages)) <= 0.36 * DURATION_S / INTERVAL_S


def test_with_the_database_there_only_the_cycle_under_way_is_excused() -> None:
    assert excused([Life(0, 101.5, 101.4)], []) == {100}
    assert excused([Life(0, 101.5, 101.4)], [Outage(20, "kill", 40)]) == {100}


def test_an_orderly_end_excuses_nothing() -> None:
    assert excused([Life(0, 101.5)], [Outage(90, "hang", 120)]) == set()


def test_while_the_database_is_away_this_lifes_cycles_are_excused() -> None:
    away = [Outage(91.0, "kill", 120)]
    assert excused([Life(0, 101.5, 101.5)], away) == {90, 92, 94, 96, 98, 100}
    assert excused([Life(97, 101.5, 101.5)], away) == {96, 98, 100}


def test_what_is_older_than_a_minute_or_in_the_store_is_not_excused() -> None:
    away = [Outage(0, "kill", 200)]
    assert min(excused([Life(0, 101.5, 101.5)], away)) == 40
    assert excused([Life(0, 101.5, 101.5, frozenset(range(0, 98, 2)))], away) == {98, 100}


def test_the_database_is_away_until_the_next_try() -> None:
    away = [Outage(80, "kill", 92)]  # tried after 1, 3, 7 and 15 s
    assert excused([Life(0, 100.5, 100.5)], away) == set(range(80, 101, 2))
    assert excused([Life(0, 101.5, 101.5)], away) == {100}
    assert excused([Life(93, 100.5, 100.5)], away) == {100}
