"""The running collector's last cycle as a file to look at: `latest.json` in the runtime directory."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from power_collector.contract import Point
from power_collector.points import Poll
from power_collector.writer import Counters

NAME = "latest.json"
DEFAULT_DIRECTORY = Path("/run/power-collector")
"""The service's runtime directory, for commands outside of the service."""


class NoCycleError(Exception):
    """There is no running collector to look at; the message says what to do."""


def point_table(point: Point) -> dict[str, Any]:
    """Return a point as `once --format json` and `latest.json` show it; `time` in seconds since 1970."""
    return {
        "measurement": point.measurement,
        "tags": dict(point.tags),
        "fields": dict(point.fields),
        "time": point.time,
    }


def runtime_directory() -> Path | None:
    """Return the directory that systemd made for the service, None outside of one."""
    path = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    return Path(path) if path else None


def load(directory: Path) -> dict[str, Any]:
    """Return the collector's last cycle.

    Raises:
        NoCycleError: there is no file, or it is none of ours.
    """
    path = directory / NAME
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NoCycleError(
            f"{path} cannot be read ({error}): the collector has not made a cycle yet, or it does not run; "
            "see `systemctl status power`"
        ) from None
    if not isinstance(table, dict) or "points" not in table:
        raise NoCycleError(f"{path} was not written by a collector")
    return table


def age_s(table: Mapping[str, Any], now: float) -> float:
    """Return how old a cycle is at `now`, seconds since 1970 by this machine's clock.

    The points' time may come from another clock, the MATE3s's.
    """
    return float(now - table["clock"]["system_time"])


def is_running(table: Mapping[str, Any], now: float) -> bool:
    """Whether the collector that wrote this goes on, at `now` as for `age_s`."""
    return age_s(table, now) <= 3 * float(table["interval_s"]) + 5


def addresses(directory: Path, now: float) -> set[str]:
    """Return the addresses (host:port) that a running collector reads, none where none runs."""
    try:
        table = load(directory)
        return {device["address"] for device in table["devices"]} if is_running(table, now) else set()
    except (NoCycleError, AttributeError, KeyError, TypeError, ValueError):
        return set()


def write(
    directory: Path,
    *,
    time: int,
    interval_s: int,
    points: Sequence[Point],
    polls: Sequence[tuple[Poll, str | None]],
    counters: Counters,
    clock: Mapping[str, float | int | None],
) -> None:
    """Replace the file at once: a reader sees the old or the new one. `polls` with the last error of each.

    `clock`: `time` by the `source` (of the data contract) that the points have, None where there is none
    yet; `system_time`, the machine's at the same moment; `offset_s`, how far the MATE3s's clock is ahead of
    `time`, None where it is not known; the counters `steps` and `replaced_points`.

    Raises:
        OSError: it cannot be written.
    """
    table = {
        "time": time,
        "interval_s": interval_s,
        "clock": dict(clock),
        "devices": [
            {
                "name": poll.device.name,
                "driver": poll.device.driver,
                "address": f"{poll.device.host}:{poll.device.port}",
                "up": poll.reading is not None,
                "failures": poll.failures,
                "age_s": poll.age_s,
                "response_ms": poll.response_ms,
                "error": error,
            }
            for poll, error in polls
        ],
        "counters": dataclasses.asdict(counters),
        "points": [point_table(point) for point in points],
    }
    temporary = directory / f".{NAME}.new"
    temporary.write_text(json.dumps(table, separators=(",", ":")), encoding="utf-8")
    temporary.replace(directory / NAME)
