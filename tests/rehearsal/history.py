"""A day of readings written into the database on the Pi, as the collector would have written them."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Iterator

from power_collector.contract import Point
from tests.virtual_pi.machine import ssh_command

from . import pi
from .disturb import newest_time, wait_for

INTERVAL_S = 15
DAY_S = 86400
# Batches of the collector's own size or so; the token goes through a file, as a command line is for everybody to see.
_IMPORT = """
umask 077
folder=$(mktemp -d) && trap 'rm -r "$folder"' EXIT
read -r token
echo "header = \\"Authorization: Token $token\\"" > "$folder/curl"
split --lines 4000 --filter="curl -sS --fail-with-body -K $folder/curl --data-binary @- \\
  'http://127.0.0.1:8086/api/v2/write?precision=s&org=Parks%20Ranch&bucket=power'"
"""


def write_a_day() -> tuple[int, int]:
    """Write a cycle each 15 s for the day before the database's first one; return how many, and the first one's time.

    They are like the collector's last cycle, with values that move.
    """
    wait_for("the first cycle", newest_time, 60)
    cycle = json.loads(pi.sudo("cat /run/power-collector/latest.json"))["points"]
    (oldest,) = pi.influxql("SELECT first(points) FROM collector_status")
    end = oldest["values"][0][0]
    times = range(end - DAY_S, end, INTERVAL_S)
    lines = f"{pi.secret('influxdb_operator_token')}\n" + "\n".join(_lines(cycle, times)) + "\n"
    done = subprocess.run(
        ssh_command("sudo", "bash", "-c", f"'{_quoted(_IMPORT)}'"),
        input=lines,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "", done.stdout
    return len(times), times[0]


def _lines(cycle: list[dict[str, object]], times: range) -> Iterator[str]:
    for at in times:
        wave = 1 + math.sin(at / 7000) / 10
        for one in cycle:
            fields = {k: v * wave if isinstance(v, float) else v for k, v in dict(one["fields"]).items()}  # type: ignore[call-overload]
            yield Point(str(one["measurement"]), dict(one["tags"]), fields, at).to_line()  # type: ignore[call-overload]


def _quoted(text: str) -> str:
    return text.replace("'", "'\\''")
