"""A stand-in for the old program: it writes what that one wrote, with made-up values and without asking a device.

Names and types of the fields are the old program's, and as its points did, these carry no time: the database gives them one.

    main.py             every 15 s, until it is stopped
    main.py HOURS       the history of that many hours, at once

INFLUXDB_TOKEN, INFLUXDB_ORG and INFLUXDB_BUCKET say where to.
"""

import math
import os
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator

INTERVAL_S = 15
CHARGERS = 6


def points(at: float) -> Iterator[str]:
    """One round of the old program at a moment (seconds since 1970), in line protocol without a time."""
    sun = max(0.0, math.sin((at % 86400) / 86400 * 2 * math.pi))
    volts = 50 + 4 * sun
    yield f"mate3s Inverter\\ Current={int(20 + 9 * sun)}i,Power\\ Usage={int(240 + 90 * sun)}i,Battery\\ Voltage={volts:.1f}"
    yield (
        f"power_room_totals total_output_current=18.0,total_charge_current=0.0,total_output_power_kw={2 + sun:.1f},"
        f"total_charge_power_kw=0.0,total_load_power_kw={2 + sun:.1f},battery_voltage={volts:.1f}"
    )
    for number in range(1, CHARGERS + 1):
        yield f"solar_charger_{number} power_kw={1.5 * sun:.3f}"
    yield f"solar_charger_total power_kw={CHARGERS * 1.5 * sun:.3f}"


def write(lines: list[str]) -> None:
    """Send lines to the database; raises OSError."""
    place = {name: os.environ[f"INFLUXDB_{name.upper()}"] for name in ("org", "bucket")}
    request = urllib.request.Request(
        "http://localhost:8086/api/v2/write?" + urllib.parse.urlencode(place),
        data="\n".join(lines).encode(),
        headers={"Authorization": f"Token {os.environ['INFLUXDB_TOKEN']}"},
    )
    urllib.request.urlopen(request, timeout=30).close()


def write_history(hours: float) -> None:
    """Write the rounds of the last hours; the old database's times have nanoseconds, and keep to no interval."""
    now = time.time()
    lines: list[str] = []
    for back in range(int(hours * 3600 / INTERVAL_S), 0, -1):
        at = now - back * INTERVAL_S
        lines += [f"{line} {int(at * 1e9) + i}" for i, line in enumerate(points(at))]
        if len(lines) >= 5000:
            write(lines)
            lines = []
    write(lines)


if __name__ == "__main__":
    if sys.argv[1:]:
        write_history(float(sys.argv[1]))
    while not sys.argv[1:]:
        write(list(points(time.time())))
        time.sleep(INTERVAL_S)
