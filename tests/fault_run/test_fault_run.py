"""Everything fails for five minutes, and the history has no gap that the design does not name.

The room (`power-collector simulate`), the rehearsal's database (the real 1.6 engine behind the adapter of
tests/vendor) and the collector (`power-collector run`, a cycle every 2 s) run as processes on loopback. By a seeded
schedule two devices at a time fail in all ways that the room knows, the database is ended, killed with -9 and made to
hang for 15 to 78 s, and the collector is killed with -9 twenty times. Then all is healed, the collector drains and ends.

What must hold, by cycle (the points of one tick, which travel together):

* Nothing invented: each point in the database, with all its fields, is what the room's own log of answers makes of that
  cycle, and a collector ran then. Of `device_status` `up` is compared, of `collector_status` that its own account
  of the cycle's points is right.
* Nothing missing: each cycle in which a device was asked is there, whole, unless a kill -9 excuses it:
  - always the cycle under way at the kill (the tick at or before it);
  - if the database was away then, also this collector's cycles since the outage began, those of the last 60 s, less those
    that its store held after the kill. "Away" lasts until the collector's next try after the return (its delays: 1, 2, 4, 8,
    15, 30 s). Neither a database that ends, dies or hangs excuses anything, nor does an orderly end of the collector.
* The counters name no loss: dropped and rejected points are 0 throughout, so nothing else may be missing.
* At least 60 % of the cycles lie outside every excuse.

The seed is printed; FAULT_RUN_SEED sets another one. It repeats the plan, not the machine's timing: what is excused follows
the moments at which things really happened.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from power_collector import config as configuration

from ..vendor.servers import basic, set_up
from .excuses import excused
from .oracle import Oracle, Points, series
from .processes import Collector, Database, FaultRunError, Room
from .schedule import INTERVAL_S, KILLS, Step, plan
from .verdict import SHOWN, judge, wrong_types

SEED = int(os.environ.get("FAULT_RUN_SEED", "1"))
TIMEOUT_S = 1.0
DRAIN_S = 90
LEAST_PROVEN = 0.60
READER = basic("grafana", "readonlypassword")
READ_FUNCTIONS = {3, 4, 0x2B}

CHARGERS = (
    ("sc1", "tristar-mppt-600v", "solar_charger_1"),
    ("sc2", "tristar-mppt-600v", "solar_charger_2"),
    ("sc3", "tristar-mppt", None),
    ("sc4", "tristar-mppt-600v", None),
)
DEVICES = ("mate3s", *(name for name, _, _ in CHARGERS))


def write_config(folder: Path, url: str) -> Path:
    """Write the configuration; each run has loopback addresses of its own."""
    network = f"127.{64 + os.getpid() % 128}.{os.getpid() // 128 % 256}"
    devices = f'[[devices]]\nname = "mate3s"\ndriver = "outback"\ninverters = 3\nhost = "{network}.1"\n'
    for number, (name, driver, legacy) in enumerate(CHARGERS, start=2):
        devices += f'[[devices]]\nname = "{name}"\ndriver = "{driver}"\nhost = "{network}.{number}"\n'
        devices += f'legacy_measurement = "{legacy}"\n' if legacy else ""
    path = folder / "config.toml"
    path.write_text(
        f'interval_s = {INTERVAL_S}\n[influxdb]\nurl = "{url}"\norg = "Parks Ranch"\nbucket = "power"\n'
        f'token_file = "{folder}/token"\n[store]\npath = "{folder}/store.sqlite"\n'
        + devices.replace("host =", f"port = 1502\ntimeout_s = {TIMEOUT_S}\nhost ="),
        encoding="utf-8",
    )
    return path


class Play:
    """Plays a plan."""

    def __init__(
        self, room: Room, database: Database, collector: Collector, say: Callable[[str], None]
    ) -> None:
        self._room, self._database, self._collector = room, database, collector
        self._say = say
        self._begin = time.monotonic()

    def run(self, steps: list[Step]) -> None:
        """Do each step at its time."""
        for step in steps:
            self.wait_until(self._begin + step.at)
            self._collector.check()
            self._do(step)

    def wait_until(self, moment: float) -> None:
        """Let real time pass, as long as the room stands."""
        try:
            status = self._room.process.wait(max(moment - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            return
        raise FaultRunError(f"the room ended by itself, status {status}")

    def drain(self) -> None:
        """Wait until nothing waits any more, twice in a row."""
        end, empty = time.monotonic() + DRAIN_S, set[int]()
        while len(empty) < 2:
            assert time.monotonic() < end, f"not drained after {DRAIN_S} s: {self._collector.waiting}"
            self.wait_until(time.monotonic() + 1)
            cycle, waiting = self._collector.waiting
            if waiting == 0 and cycle > self._collector.lives[-1].begin:
                empty.add(cycle)
            else:
                empty.clear()

    def _do(self, step: Step) -> None:
        match step.action:
            case "fault":
                self._room.fault(step.device, step.settings)
            case "heal":
                self._room.fault(step.device, None)
            case "stop database":
                self._say(f"{step.at:4.0f} s: the database: {step.how}")
                self._database.stop(step.how)
            case "start database":
                self._database.start()
                self._say(f"{time.monotonic() - self._begin:4.0f} s: the database answers again")
            case "kill collector":
                self._collector.kill()
            case "end collector":
                assert self._collector.end() == 0, "an orderly end must succeed"
            case "start collector":
                self._collector.start()
            case _:
                raise AssertionError(step)


def read(database: Database, query: str) -> list[dict[str, Any]]:
    """Give the series of a query's answer."""
    args = {"db": "power", "q": query, "epoch": "s"}
    (result,) = database.server.ask("GET", "/query", args, headers=READER).json()["results"]  # type: ignore[index]
    assert "error" not in result, result
    found: list[dict[str, Any]] = result.get("series", [])
    return found


def all_points(database: Database) -> dict[int, Points]:
    """Give all that is in the database, by time and series."""
    points: dict[int, Points] = defaultdict(dict)
    for table in read(database, "SELECT * FROM /.*/ GROUP BY *"):
        # A query over all measurements names the tags of all; those that a series has not are empty.
        key = series(table["name"], {name: value for name, value in table.get("tags", {}).items() if value})
        for row in table["values"]:
            cycle, *values = row
            fields = dict(zip(table["columns"][1:], values, strict=True))
            points[cycle][key] = {name: value for name, value in fields.items() if value is not None}
    return dict(points)


def field_types(database: Database) -> dict[str, dict[str, str]]:
    """Give the type of each field."""
    return {table["name"]: dict(table["values"]) for table in read(database, "SHOW FIELD KEYS")}


@pytest.mark.fault_run
@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.0/8, /proc and pidfd are Linux's")
def test_nothing_is_missing_and_nothing_invented(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def say(text: str) -> None:
        with capsys.disabled():
            print(f"fault run: {text}", flush=True)

    steps = plan(SEED, DEVICES)
    say(f"FAULT_RUN_SEED={SEED}, {steps[-1].at:.0f} s, {KILLS} kills, files in {tmp_path}")
    with ExitStack() as stack:
        database = stack.enter_context(Database.open(tmp_path / "influxdb"))
        (tmp_path / "token").write_text(set_up(database.server)["write token"], encoding="ascii")
        config_file = write_config(tmp_path, database.url)
        room = stack.enter_context(Room.open(tmp_path, config_file))
        collector = stack.enter_context(Collector.open(tmp_path, config_file))
        collector.start()
        play = Play(room, database, collector, say)
        play.run(steps)
        play.drain()
        assert collector.end() == 0
        assert room.end() == 0
        points, types = all_points(database), field_types(database)
    (tmp_path / "record.txt").write_text(
        "\n".join(map(repr, [*collector.lives, *database.outages])), encoding="utf-8"
    )
    answers = room.answers()
    oracle = Oracle(configuration.load(config_file), answers)
    excuses = excused(collector.lives, database.outages)
    verdict = judge(oracle, points, excuses, collector.lives)

    kept = [life.kept for life in collector.lives if life.kept]
    say(
        f"seed {SEED}: {len(answers)} requests, {sum('registers' in e and 'fault' not in e for e in answers)} answered;"
        f" faults {dict(Counter(e['fault'] for e in answers if 'fault' in e))}\n{verdict.summary()}\n"
        f"database away {sum(o.end - o.begin for o in database.outages):.0f} s in {len(database.outages)} outages;"
        f" {len(kept)} kills with cycles in the store, at most {max(map(len, kept), default=0)}"
    )
    if verdict.faults:
        pytest.fail(
            f"{len(verdict.faults)} faults, e.g.\n" + "\n".join(verdict.faults[:SHOWN]), pytrace=False
        )
    assert not wrong_types(types)
    assert collector.kept() == frozenset(), "the store is empty after the drain"
    assert [e for e in answers if "violation" in e or e["function"] not in READ_FUNCTIONS] == []
    assert complaints(collector.log) == []

    # The run was what it should be: enough of everything, and most of it beyond any excuse.
    assert sum(life.killed is not None for life in collector.lives) == KILLS
    assert {outage.how for outage in database.outages} == {"end", "kill", "hang"}
    assert verdict.ran >= 110, "the machine is too busy for a cycle every 2 s"
    assert verdict.excused <= (1 - LEAST_PROVEN) * verdict.ran
    assert verdict.in_the_last_moment <= 0.05 * verdict.ran
    assert kept, "no kill met a store that held cycles"
    assert verdict.down > 50
    last = points[max(points)]
    up = {key[1]: status["up"] for key, status in last.items() if key[0] == "device_status"}
    assert list(up.values()) == [1] * len(DEVICES), "all devices are back"


def complaints(log: Path) -> list[str]:
    """Give the lines of errors in the collector's log: a room's and a database's faults are none."""
    lines = log.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if " ERROR " in line or " CRITICAL " in line or "Traceback" in line]
