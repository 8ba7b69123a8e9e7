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
