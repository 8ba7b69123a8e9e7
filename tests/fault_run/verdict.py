"""The database against the room's log: nothing invented, nothing missing that a kill does not excuse."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from power_collector.contract import measurement as contract_of

from .oracle import Oracle, Points, series
from .processes import Life

SHOWN = 12
_INEXACT = 1e-9


@dataclass
class Verdict:
    """The faults, and the numbers behind them; cycles are named by their times."""

    faults: list[str] = field(default_factory=list)
    ran: int = 0
    expected_points: int = 0
    database_points: int = 0
    compared_by_hand: int = 0
    excused: int = 0
    excused_points: int = 0
    missing: int = 0
    missing_points: int = 0
    unexcused: int = 0
    in_the_last_moment: int = 0
    down: int = 0
    up: int = 0

    def fault(self, cycle: int, text: str) -> None:
        """Note a fault."""
        self.faults.append(f"cycle {cycle}: {text}")

    def summary(self) -> str:
        """Say the numbers."""
        return (
            f"{self.ran} cycles ran, {self.expected_points} points expected, {self.database_points} in the database\n"
            f"cycles that a kill may cost: {self.excused} ({self.excused_points} points);"
            f" missing: {self.missing} ({self.missing_points} points), of which without excuse: {self.unexcused}\n"
            f"device polls: {self.up} up, {self.down} down; values compared with the second decoder:"
            f" {self.compared_by_hand}; cycles with an answer in the last moment: {self.in_the_last_moment}"
        )


def judge(
    oracle: Oracle, database: Mapping[int, Points], excused: set[int], lives: Sequence[Life]
) -> Verdict:
    """Compare both ways, cycle by cycle."""
    verdict = Verdict(ran=len(oracle.cycles), database_points=sum(map(len, database.values())))
    for cycle in sorted({*oracle.cycles, *database}):
        expected = oracle.expected(cycle)
        number = len(expected.points[0])
        verdict.expected_points += number
        verdict.in_the_last_moment += len(expected.points) > 1
        if cycle in excused:
            verdict.excused += 1
            verdict.excused_points += number
        if cycle not in database:
            verdict.missing += 1
            verdict.missing_points += number
            if cycle not in excused:
                verdict.unexcused += 1
                verdict.fault(cycle, f"is missing, {number} points, and no kill excuses it")
            continue
        found = database[cycle]
        if not any(life.begin < cycle <= life.end for life in lives):
            verdict.fault(cycle, f"was invented, {len(found)} points: no collector ran then")
        differences = [_differences(wanted, found) for wanted in expected.points]
        verdict.faults += [f"cycle {cycle}: {text}" for text in min(differences, key=len)]
        _compare_by_hand(verdict, cycle, expected.decoded, found)
        _check_status(verdict, cycle, found)
    return verdict


def _differences(wanted: Points, found: Points) -> list[str]:
    texts = [f"{_name(key)} is missing from a cycle that is there" for key in wanted.keys() - found.keys()]
    texts += [f"{_name(key)} was invented: {found[key]}" for key in found.keys() - wanted.keys()]
    for key in wanted.keys() & found.keys():
        measured = found[key]
        if key[0] in ("device_status", "collector_status"):
            measured = {name: value for name, value in measured.items() if name in wanted[key]}
        if measured != wanted[key]:
            off = {
                name: (measured.get(name), wanted[key].get(name))
                for name in measured.keys() | wanted[key].keys()
                if measured.get(name) != wanted[key].get(name)
            }
            texts.append(f"{_name(key)}: (in the database, answered) = {off}")
    return texts


def _compare_by_hand(
    verdict: Verdict, cycle: int, decoded: Mapping[Any, Mapping[str, float]], found: Points
) -> None:
    for key, fields in decoded.items():
        for name, value in fields.items():
            verdict.compared_by_hand += 1
            there = found.get(key, {}).get(name)
            if there is None or not math.isclose(there, value, rel_tol=_INEXACT, abs_tol=_INEXACT):
                verdict.fault(cycle, f"{_name(key)}: {name} is {there}, by the second decoder {value}")


def _check_status(verdict: Verdict, cycle: int, found: Points) -> None:
    """Hold the collector's own points against each other and against the cycle."""
    own = found.get(series("collector_status", {}), {})
    if own.get("points") != len(found):
        verdict.fault(cycle, f"has {len(found)} points, and collector_status says {own.get('points')}")
    lost = {name: own.get(name) for name in ("dropped_points", "rejected_points")}
    if lost != {"dropped_points": 0, "rejected_points": 0}:
        verdict.fault(cycle, f"points were lost by the collector's own account: {lost}")
    for (name, tags), status in found.items():
        if name != "device_status":
            continue
        up = status.get("up") == 1
        verdict.up += up
        verdict.down += not up
        if up != (status.get("failures") == 0) or (up and not 0 < status.get("response_ms", 0) < 2500):
            verdict.fault(cycle, f"{_name((name, tags))} contradicts itself: {status}")


def wrong_types(field_keys: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Name the fields whose type in the database is not the contract's."""
    return [
        f"{name}.{key}: {kind}"
        for name, keys in field_keys.items()
        for key, kind in keys.items()
        if kind != {int: "integer", float: "float"}[contract_of(name).fields[key].type]
    ]


def _name(key: Any) -> str:
    name, tags = key
    return ",".join([name, *(f"{tag}={value}" for tag, value in tags)])
