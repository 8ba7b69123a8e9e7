"""Ways to disturb the rehearsal, and to wait for what comes of it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable

from . import pi, playbook


def virtual_pi(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "tests.virtual_pi", *arguments], cwd=playbook.TOP, check=True, timeout=300
    )


def newest_time() -> int:
    """The time of the newest cycle in the database (seconds since 1970), 0 where there is none."""
    series = pi.influxql("SELECT last(points) FROM collector_status")
    return int(series[0]["values"][0][0]) if series else 0


def room_control(settings: dict[str, object]) -> None:
    """Tell the simulated room which device has which fault; the file is followed as it is replaced."""
    new = pi.STATE / "control.new"
    new.write_text(json.dumps(settings), encoding="utf-8")
    new.replace(pi.STATE / "control.json")


def wait_for(condition: str, seen: Callable[[], object], timeout_s: float) -> float:
    """Wait until `seen()` is true; return the seconds that it took."""
    started = time.monotonic()
    while not seen():
        assert time.monotonic() - started < timeout_s, f"not within {timeout_s} s: {condition}"
        time.sleep(1)
    return time.monotonic() - started
